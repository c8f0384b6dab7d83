"""Measures what a model costs, in one way for dense and compact: sizes, time, memory and energy.

``compare`` measures inference, ``training_step`` a step of training. Timings of the models take turns, so that their
ratio survives a noisy machine, and every one comes with its spread.

Read in this order: ``sizes``, ``timing``, ``memory``, ``energy``, ``batches`` (the best batch of a model),
``inference`` (``compare``) and ``step`` (``training_step``).
"""

from lumos.measure.inference import compare
from lumos.measure.memory import peak_bytes
from lumos.measure.sizes import batch_of, macs, parameters, resized, samples_of, size_bytes, traced_macs
from lumos.measure.step import training_step

__all__ = [
    "batch_of",
    "compare",
    "macs",
    "parameters",
    "peak_bytes",
    "resized",
    "samples_of",
    "size_bytes",
    "traced_macs",
    "training_step",
]
