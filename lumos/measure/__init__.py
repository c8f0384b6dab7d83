"""Measures what a model costs, in one way for dense and compact: sizes, time, memory and energy.

``inference_cost`` measures inference, ``training_step`` a step of training; ``compare`` is a short table for two
models. Timings of the models take turns, so that their
ratio survives a noisy machine, and every one comes with its spread.

Read in this order: ``sizes``, ``timing``, ``memory``, ``energy``, ``batches`` (the best batch of a model),
``inference`` (``inference_cost``), ``execution`` (the same calls as CUDA graphs and compiled: ``mode_cost``), ``step``
(``training_step``) and ``comparison`` (``compare``).
"""

from lumos.measure.comparison import compare
from lumos.measure.execution import mode_cost
from lumos.measure.inference import inference_cost
from lumos.measure.memory import peak_bytes
from lumos.measure.sizes import batch_of, macs, parameters, resized, samples_of, size_bytes, traced_macs
from lumos.measure.step import training_step

__all__ = [
    "batch_of",
    "compare",
    "inference_cost",
    "macs",
    "mode_cost",
    "parameters",
    "peak_bytes",
    "resized",
    "samples_of",
    "size_bytes",
    "traced_macs",
    "training_step",
]
