"""Removes the closed units of a gated model: a smaller model of the user's own class that computes the same function.

Read in this order: ``plan`` (which indices and sizes stay), ``compact`` (the cut), ``model`` (what comes out) and
``compact_file`` (how it is kept), ``verify`` (that it computes the same), ``layers`` (torch's layers with units gone),
``surgery`` (modules with other tensors), ``constant_folding`` (whole branches that are gone), ``double_precision``,
``reference`` (the gated function, quickly), ``probe`` (all of this before any training) and ``explain`` (as text).
"""
