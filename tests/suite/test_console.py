"""What a person sees while a run works."""

import resource

import pytest

from lumos.errors import RecordError
from lumos.suite.console import log, logging_to


def fail(file):
    """Do a run that cannot write."""
    with logging_to(file):
        log.info("reading")
        raise RecordError("cannot be written")


def test_a_log_on_a_full_disk_hides_nothing_and_says_no_page(tmp_path, capsys):
    """Not the error of the run itself, which names the folder, and not behind a traceback of the log's own."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(RecordError, match="cannot be written"):
            fail(tmp_path / "train.log")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "Traceback" not in capsys.readouterr().err
