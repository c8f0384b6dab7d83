"""Puts a gate on every removable unit of a model: the hard concrete distribution, and weights read through gates.

Read ``hard_concrete`` (the distribution, equations 1-5), ``gates`` (one vector of them for a whole model), ``sites``
(the values of a step, and how their gradient comes back), ``layers`` (modules that read their weights through gates),
and ``gated_model`` (what :func:`lumos.gate` returns). ``settings`` holds plain values and imports no torch.
"""
