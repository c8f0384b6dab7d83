"""Every reader with bytes that are drawn, and with damage of files that it reads."""

import copy
import json
import random
import warnings
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, attempt, damaged_files
from tests.harness.faults import WRONG, damaged, places

QUICK = ("csv", "record", "npz", "pdb")


@pytest.fixture(scope="module")
def seeds():
    """Files of each reader, made once."""
    known = {}

    def of(name):
        if name not in known:
            known[name] = TARGETS[name].seeds()
        return known[name]

    return of


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in TARGETS])
def test_what_it_reads_it_reads(name, seeds, tmp_path):
    assert any(attempt(TARGETS[name], content, tmp_path) for content in seeds(name))


@pytest.mark.parametrize("name", QUICK)
def test_damage_is_one_line(name, seeds, tmp_path):
    trial(name, seeds(name), tmp_path, 12)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_much_damage_is_one_line(name, seeds, tmp_path):
    trial(name, seeds(name), tmp_path, 30 if name == "settings" else 150)


JSON = [name for name, target in TARGETS.items() if target.name.endswith(".json")]


def places_and_values():
    """Of files of JSON, which wrong value to put everywhere; what is composed anew for each takes a second for ten."""
    for name in JSON:
        slow = name == "recorded configuration"
        for value in ("missing", None) if slow else ("missing", *WRONG):
            marks = () if name in QUICK and value == "missing" else pytest.mark.slow
            yield pytest.param(name, value, marks=marks, id=f"{name}-{value!r:.20}")


@pytest.mark.parametrize(("name", "wrong"), list(places_and_values()))
def test_each_place_is_missing_or_wrong_in_one_line(name, wrong, seeds, tmp_path):
    for whole in map(json.loads, seeds(name)):
        alike = {tuple(0 if isinstance(key, int) else key for key in place) for place in places(whole)[1:]}
        for *above, last in sorted(alike, key=str):
            made = holder = copy.deepcopy(whole)
            for key in above:
                holder = holder[key]
            if wrong == "missing":
                del holder[last]
            else:
                holder[last] = wrong
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                attempt(TARGETS[name], json.dumps(made).encode(), tmp_path)


def trial(name, known, folder, times):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ends = list(damaged_files(replace(TARGETS[name], seeds=lambda: known), name, times, folder))
    assert len(ends) == times


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_one_line(name, seeds, tmp_path):
    target = TARGETS[name]

    @settings(max_examples=15 if name == "settings" else 60, deadline=None, database=None,
              suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])  # fmt: skip
    @given(st.binary(max_size=400), st.integers(0, 2**32), st.text(max_size=100))
    def check(content, seed, text):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            draws = random.Random(seed)
            whole = draws.choice(seeds(name))
            at = draws.randrange(len(whole) + 1)
            for drawn in (content, text.encode(), whole[:at] + content + whole[at:], damaged(whole, draws)):
                attempt(target, drawn, tmp_path)

    check()
