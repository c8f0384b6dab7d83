"""What can go wrong and is expected to. Every message is one line: what was wrong, what was expected, what to do."""


class LumosError(Exception):
    """An expected error; the command line prints its line without a traceback."""


class ConfigError(LumosError, ValueError):
    """A setting, or a key or a value of the configuration, cannot be used."""


class DataError(LumosError):
    """A file or a setting of a workload is missing or wrong."""


class StructureError(LumosError):
    """The model cannot be traced or gated as asked."""


class CompactionError(LumosError):
    """The compact model does not compute what the gated one does, or a saved one cannot be read."""


class TrainingError(LumosError):
    """A training went wrong."""


class UnsupportedError(LumosError):
    """A method cannot treat a model; the record says so and why."""


class OtherProcessError(LumosError):
    """The first of several processes failed and said why; the others stop with it."""


class RecordError(LumosError):
    """A record cannot be read, or its run is busy."""


class ExportError(LumosError):
    """A model cannot be written as a file for another runtime, or the file does not compute the same."""


def one_line(error: BaseException) -> str:
    """An exception's message on one line."""
    return " ".join(str(error).split())
