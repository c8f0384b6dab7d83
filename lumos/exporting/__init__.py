"""Writes models as files that run without their Python code, and checks every file against its model.

Read in this order: ``exported`` (``export`` and what it returns), ``program`` (a model as a torch.export program of any
batch size), ``checks`` (a reloaded file against its model), ``pt2_file``, ``onnx_file`` and ``onnx_operators``.
"""

from lumos.exporting.exported import Exported, Format, export, exportable, format_of
from lumos.exporting.pt2_file import METADATA

__all__ = ["METADATA", "Exported", "Format", "export", "exportable", "format_of"]
