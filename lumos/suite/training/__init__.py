"""Training a network of the suite, dense or with gates, in one process or several, from any checkpoint.

Read ``loop`` first: epochs, validation, checkpoints, and the pruning in between. What one step does stands in ``step``.
``state`` is all that changes on the way; ``method`` is what a method of pruning does beside the steps that all share,
and ``lumos_method`` is ours. The others are what these call: ``loading`` (batches), ``evaluation`` (scores),
``checkpoint`` and ``signals`` (going on after a stop), ``distributed`` (several processes), ``compiled``
(``torch.compile``), ``pretrained`` (weights to start from).
"""
