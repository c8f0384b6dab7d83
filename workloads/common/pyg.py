"""torch-geometric, imported so that it does not warn about its own affairs."""

import warnings

with warnings.catch_warnings():
    # It scripts a class when it is imported, which torch has deprecated.
    warnings.simplefilter("ignore")
    from torch_geometric.data import Batch
    from torch_geometric.nn import MessagePassing, global_add_pool, global_mean_pool
    from torch_geometric.utils import degree

__all__ = ["Batch", "MessagePassing", "degree", "global_add_pool", "global_mean_pool"]
