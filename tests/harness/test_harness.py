"""A few trials of each kind; scripts/reliability.py does them by the hundred, and the page's table is its record."""

import json
import os
import random
import subprocess
import sys

import pytest
from click.testing import CliRunner

from lumos.errors import LumosError
from lumos.suite import cli
from lumos.suite.paths import PROJECT
from tests.harness import words
from tests.harness.child import Outcome
from tests.harness.sandbox import written_outside

SCRIPT = PROJECT / "scripts" / "reliability.py"


def test_the_page_has_the_records_table():
    assert subprocess.run([sys.executable, SCRIPT, "--check"], cwd=PROJECT, check=False).returncode == 0
    kept = json.loads((PROJECT / "results" / "reference" / "reliability.json").read_text())
    assert all(found["trials"] > 0 for found in kept.values())


def test_what_is_drawn_is_another_command_line():
    """And it differs from trial to trial; nothing outside of a trial's folder is named as a place."""
    known = words.working({"synthetic": "aaaa", "table": "bbbb"})
    drawn = [words.wrong(call, random.Random(k)) for k in range(3) for _, call in known]
    assert len(set(drawn)) > 2 * len(known)
    places = [place for call in drawn for place in words.own_places(call)]
    assert places
    assert not [place for place in places if place.startswith("/") and not place.startswith("/proc/")]


def test_wrong_words_of_commands_that_read_records_are_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    readers = ("list", "compare", "unpack", "sweep", "feature-report")
    for k in range(12):
        draws = random.Random(k)
        call = draws.choice([c for _, c in words.working({"synthetic": "a", "table": "b"}) if c[0] in readers])
        outcome = CliRunner().invoke(cli.lumos, words.wrong(call, draws), obj="lumos")
        assert outcome.exception is None or isinstance(outcome.exception, LumosError | SystemExit | OSError), call


@pytest.mark.parametrize(
    ("end", "fault"),
    [
        (Outcome(0, "", 1.0), None),
        (Outcome(2, "lumos: no", 1.0), None),
        (Outcome(2, "", 1.0), "says nothing"),
        (Outcome(1, "Traceback (most recent call last)\nKeyError: 1", 1.0), "traceback: KeyError"),
        (Outcome(-11, "", 1.0), "killed by signal 11"),
        (Outcome(-15, "", 30.0, asked=True), None),
        (Outcome(-9, "", 40.0, asked=True, hung=True), "hangs"),
    ],
)
def test_what_counts_as_a_fault(end, fault):
    assert end.fault is None if fault is None else fault in (end.fault or "")


def test_what_is_written_elsewhere_is_seen():
    before = {"copy/results/a": (1, 1), "copy/work/t.csv": (1, 1), "copy/work/gone": (1, 1)}
    after = {"copy/results/a": (2, 2), "copy/work/t.csv": (1, 1), "copy/work/new": (1, 1)}
    assert written_outside(before, after, ["copy/results"]) == ["copy/work/gone", "copy/work/new"]
    assert written_outside(before, after, ["copy"]) == []


@pytest.mark.slow
def test_some_trials(tmp_path):
    """Of all kinds that need no Slurm, no browser and no fuzzer."""
    record = tmp_path / "record.json"
    env = os.environ | {"LUMOS_TRIALS": str(tmp_path / "trials"), "LUMOS_RELIABILITY": str(record)}
    kinds = ["words=15", "records=5", "files=5", "both=5", "processes=1", "kills=8"]
    done = subprocess.run([sys.executable, SCRIPT, *kinds], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [found["faults"] for found in json.loads(record.read_text()).values()] == [[]] * 6
