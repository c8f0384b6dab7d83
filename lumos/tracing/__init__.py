"""From a model and an example to what can be removed from it.

A trace runs the model once. Every value of every tensor carries a *unit id*: the channel, neuron, head or feature that
it belongs to. A rule for each kind of call says what the call does to the ids: a linear layer makes new ones, a sum
merges those that meet, a softmax over channels fixes them, a reshape moves them. At the end, units that were merged are
one class; a class that nothing fixed can be removed, and the ids along the axes of each weight say which rows and
columns go with it. The model stays as it is: a copy of its modules runs, and all that is known of tensors is in tables.

To read, in this order: ``unit_ids`` and ``calls`` (the words), ``trace`` (the record that rules write), ``rules`` (one
file for each family of calls), ``tracer`` (runs the model and asks the rules), ``unit_classes`` and ``build_structure``
(from the record to groups), ``structure`` (the result) with ``costs`` and ``dataflow``, ``trace_structure`` (the entry,
which finds features). The rest are tools: ``modules``, ``protection``, ``tensor_table``, ``inputs``, ``index_maps``,
``shape_only``, ``multihead_attention``, ``query_key``.
"""
