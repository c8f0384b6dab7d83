"""Try wrong words, damaged files, kills and full disks by the hundred; the record of it and the table of the page.

``python scripts/reliability.py words=1000 kills=60 disks`` does trials of these kinds and puts what it found into
results/reference/reliability.json, beside what is there of other kinds; ``python scripts/reliability.py --page`` makes
the table of docs/reliability.md from it. ``words+100`` does so many more than the record has, ``words:123`` does the
trial of this number again and shows it, ``--again`` does all of the record again that found a fault.

Kinds: ``words`` (wrong command lines), ``files`` (damaged files under right ones), ``both``, ``processes`` (some of
these as processes of their own), ``kills``, ``disks``, ``browser``, ``cluster``, ``fuzz``.
"""

from __future__ import annotations

import json
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))
RECORD = PROJECT / "results" / "reference" / "reliability.json"
PAGE = PROJECT / "docs" / "reliability.md"
ROOT = Path(os.environ.get("LUMOS_TRIALS") or tempfile.mkdtemp(prefix="lumos-trials-"))
MARKS = ("<!-- made by scripts/reliability.py -->", "<!-- end -->")

Found = dict[str, Any]


def sandbox() -> Any:
    """The sandbox, made where it is not there; LUMOS is imported for it."""
    os.environ |= {
        "LUMOS_RESULTS": str(ROOT / "copy" / "results"), "LUMOS_CACHE": str(ROOT / "copy" / "cache"),
        "HOME": str(ROOT / "home"), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "COLUMNS": "120",
        "HYDRA_FULL_ERROR": "1",
    }  # fmt: skip
    (ROOT / "home").mkdir(parents=True, exist_ok=True)
    from lumos.suite import export_run, feature_report, fit_file, in_the_loop, run, run_suite  # noqa: F401
    from lumos.suite.report import build  # noqa: F401
    from tests.harness.sandbox import Sandbox

    made = Sandbox(ROOT)
    if not (ROOT / "whole" / "work" / "study").exists():
        made.make()
    for workload in ("synthetic", "table"):
        paths = sorted((ROOT / "whole" / "results" / "runs" / workload).glob("*/record.json"))
        entries = [json.loads(path.read_text()) for path in paths]
        made.ids[workload] = next(e["run_id"] for e in entries if e["seed"] == 0)
    return made


# ---- wrong words and damaged files --------------------------------------------------------------------------------


def inputs(kind: str, count: int, only: int | None = None, first: int = 0) -> Found:
    """Wrong command lines, right ones over damaged files, or both, from number ``first`` on."""
    from lumos.suite import cli
    from tests.harness import words
    from tests.harness.child import run
    from tests.harness.faults import damage
    from tests.harness.sandbox import draw_without_rendering, quick_measurements, written_outside

    box = sandbox()
    figures = box.figures
    known = words.working(box.ids)
    ends: Counter[str] = Counter()
    commands: Counter[str] = Counter()
    wrong: list[Found] = []
    longest = 0.0
    if kind == "records":
        known = [(n, w) for n, w in known if w[0] in READERS]
    for number in [only] if only is not None else range(first, first + count):
        draws = random.Random(f"{kind} {number}")
        box.restore()
        (call,) = draws.choices([w for _, w in known], [n for n, _ in known])
        sweep = next((ROOT / "copy" / "results" / "sweeps").iterdir(), None)
        call = tuple(f"../results/sweeps/{sweep.name}" if w == "SWEEP" and sweep else w for w in call)
        fault, file = "", None
        if kind in ("files", "both"):
            file = draws.choice(_read_by(call, box))
        if kind == "records":
            file = draws.choice(_facts(box))
        if file is not None:
            fault = f"{file.relative_to(box.copy)}: {damage(file, draws, 1.0 if kind == 'records' else 0.6)}"
        if kind in ("words", "both"):
            call = words.wrong(call, draws)
        own = [os.path.relpath(os.path.normpath(box.copy / "work" / place), ROOT) for place in words.own_places(call)]
        allowed = ["copy/results", "copy/cache", "said", "home/.cache", *own, *_made_by(call)]
        before = box.tree()

        def do(call: tuple[str, ...] = call, rendered: bool = number % 10 == 0) -> None:
            quick_measurements(figures)
            if not rendered:
                draw_without_rendering()
            cli.main(call)

        outcome = run(do, box.said, box.copy / "work")
        outside = written_outside(before, box.tree(), [os.path.normpath(a) for a in allowed])
        longest = max(longest, outcome.seconds if not outcome.asked else 0.0)
        problem = outcome.fault or (f"wrote outside: {outside[:4]}" if outside else None)
        end = "at work, ended when asked" if outcome.asked else "done" if outcome.code == 0 else "one line"
        ends["fault" if problem else end] += 1
        commands[call[0] if call else ""] += 1
        if problem or only is not None:
            wrong.append({"trial": f"{kind}:{number}", "words": list(call), "file": fault, "problem": problem})
            print(json.dumps(wrong[-1]), flush=True)
            if only is not None:
                print(outcome.said)
        elif number % 50 == 0:
            print(f"{kind} {number}: {dict(ends)}", flush=True)
    return {"trials": count, "ends": dict(ends), "commands": len(commands), "longest_seconds": round(longest, 1),
            "faults": wrong}  # fmt: skip


READERS = ("list", "pack", "unpack", "compare", "figures", "report", "feature-report", "predict", "export", "sweep")
"""Commands that read what runs wrote."""


def _facts(box: Any) -> list[Path]:
    """Files in which runs say what they found."""
    named = ("record.json", "record.json", "record.json", "suite.json", "job.json", "dense.json", "predictor.json",
             "curve.csv", "features.csv", "old.jsonl.gz", "report.csv")  # fmt: skip
    files = box.files()
    return [path for name in named for path in files if path.name == name]


def _read_by(call: tuple[str, ...], box: Any) -> list[Path]:
    """Files that may be damaged under a call: those that it names, and any other of the sandbox."""
    files = box.files()
    named = [box.copy / "work" / word for word in call[1:]]
    near = [f for f in files if any(f == n or n.resolve() in f.parents for n in named if n.exists())]
    return [*near, *near, *files] if near else files


def _made_by(call: tuple[str, ...]) -> list[str]:
    """What a call writes where its words name no place: below the folder that it is called in."""
    return {"predict": ["copy/work/t_predicted.csv", "copy/work"], "feature-report": ["copy/work/report.png"]}.get(
        call[0] if call else "", []
    )


def processes(count: int, only: int | None = None) -> Found:
    """Some of the wrong inputs as real processes, with all that starting and ending one does."""
    from tests.harness import words

    box = sandbox()
    known = words.working(box.ids)
    wrong: list[Found] = []
    for number in [only] if only is not None else range(count):
        draws = random.Random(f"words {number}")
        box.restore()
        (call,) = draws.choices([w for _, w in known], [n for n, _ in known])
        call = words.wrong(call, draws)
        env = os.environ | {"PYTHONPATH": str(PROJECT)}
        command = [sys.executable, "-m", "lumos", *call]
        began = time.monotonic()
        with subprocess.Popen(
            command, cwd=box.copy / "work", env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace",
        ) as process:  # fmt: skip
            try:
                said, _ = process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.terminate()
                said, _ = process.communicate(timeout=30)
        if "Traceback" in said or process.returncode < 0 or (process.returncode and not said.strip()):
            problem = f"code {process.returncode} after {time.monotonic() - began:.0f} s: {said[-300:]}"
            wrong.append({"trial": f"processes:{number}", "words": list(call), "problem": problem})
            print(json.dumps(wrong[-1]), flush=True)
    return {"trials": count, "faults": wrong}


# ---- kills and full disks -----------------------------------------------------------------------------------------

SHARES = {"generation": 8, "dense training": 8, "gated training": 10, "cut": 8, "measurement": 6, "record": 8,
          "sweep": 6, "two processes": 6}  # fmt: skip
"""How 60 kills are spread."""


def kills(count: int, only: int | None = None) -> Found:
    """Kills at random moments of every stage, each followed by the same call."""
    box = sandbox()
    from tests.harness.kills import STAGES, Killing  # after the sandbox

    wrong: list[Found] = []
    done: Counter[str] = Counter()
    trials = [
        (name, k) for name, share in SHARES.items() for k in range(max(1, round(count * share / sum(SHARES.values()))))
    ]
    killing: Killing | None = None
    for number, (name, k) in enumerate(trials):
        if only is not None and number != only:
            continue
        if killing is None or killing.stage.name != name:
            killing = Killing(STAGES[name], ROOT / "kills" / name.replace(" ", "-"), box.figures)
        problem = killing.kill(k, random.Random(f"{name} {k}"))
        done[name] += 1
        print(f"kills:{number}: {name}: {problem or 'the same record'}", flush=True)
        if problem:
            wrong.append({"trial": f"kills:{number}", "what": name, "problem": problem})
    return {"trials": sum(done.values()), "stages": dict(done), "faults": wrong}


def disks(count: int, only: int | None = None) -> Found:
    """Every call that writes, with files limited to several sizes and on a file system of 200 kB."""
    box = sandbox()
    from tests.harness import disks as full  # after the sandbox, which says where LUMOS finds results

    wrong: list[Found] = []
    trials, lacked = 0, 0
    calls = full.calls(box.ids)
    ways: list[int | None] = [*full.SIZES, *([None] if os.geteuid() == 0 else [])]
    for number, (name, size) in enumerate((name, size) for name in calls for size in ways):
        if only is not None and number != only:
            continue
        words = calls[name]
        problem, lack = full.on_a_small_disk(box, words, 200) if size is None else full.trial(box, words, size)
        how = "a disk of 200 kB" if size is None else f"{size} bytes a file"
        trials, lacked = trials + 1, lacked + lack
        print(f"disks:{number}: {name}, {how}: {problem or ('one line' if lack else 'room enough')}", flush=True)
        if problem:
            wrong.append({"trial": f"disks:{number}", "what": f"{name}, {how}", "problem": problem})
        if problem or only is not None:
            print(box.said.read_text(errors="replace"))
    return {"trials": trials, "stages": len(calls), "room_lacked": lacked, "faults": wrong}


# ---- what tests try -----------------------------------------------------------------------------------------------


def by_tests(*arguments: str, **variables: str) -> Found:
    """Trials that are tests: how many of them passed, and the names of the others."""
    report = ROOT / "junit.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *arguments]
    subprocess.run(command, cwd=PROJECT, env=os.environ | variables, check=False)
    import xml.etree.ElementTree as ET

    cases = list(ET.parse(report).iter("testcase"))
    bad = [c.attrib["name"] for c in cases if c.find("failure") is not None or c.find("error") is not None]
    skipped = [c.attrib["name"] for c in cases if c.find("skipped") is not None]
    names = [c.attrib["name"] for c in cases if c.attrib["name"] not in skipped]
    return {"trials": len(names), "names": names, "faults": [{"trial": name, "problem": "failed"} for name in bad],
            "skipped": skipped}  # fmt: skip


def browser(count: int, only: int | None = None) -> Found:
    """A page with markup in every field of its records, in a browser."""
    return by_tests("tests/suite/report/test_figures.py", "-k", "browser", "-m", "slow or not slow")


def cluster(count: int, only: int | None = None) -> Found:
    """A two-node Slurm: cancel, node death, requeue, refusal, the driver's end."""
    return by_tests("tests/cluster", LUMOS_CLUSTER_TESTS="1")


def readers(count: int, only: int | None = None) -> Found:
    """Each reader with so many damaged files."""
    import warnings

    from tests.fuzz import targets

    warnings.simplefilter("ignore")
    wrong: list[Found] = []
    ends: Counter[str] = Counter()
    for name, target in targets.TARGETS.items():
        try:
            ends.update(targets.damaged_files(target, name, count, ROOT / "readers" / re.sub(r"\W", "_", name)))
        except Exception as error:
            wrong.append({"trial": name, "problem": f"{type(error).__name__}: {error}"})
        print(f"readers: {name}: {dict(ends)} {wrong[-1:]}", flush=True)
    return {"trials": sum(ends.values()), "ends": dict(ends), "readers": len(targets.TARGETS), "faults": wrong}


def fuzz(count: int, only: int | None = None) -> Found:
    """Each reader with bytes from a fuzzer that follows the code's branches; ``count`` seconds each."""
    from tests.fuzz import targets

    return targets.campaign(count, ROOT / "fuzz")


KINDS: dict[str, tuple[Callable[..., Found], int]] = {
    "words": (partial(inputs, "words"), 1000), "files": (partial(inputs, "files"), 400),
    "records": (partial(inputs, "records"), 300), "both": (partial(inputs, "both"), 100),
    "readers": (readers, 100), "processes": (processes, 20), "kills": (kills, 60), "disks": (disks, 1),
    "browser": (browser, 1),
    "cluster": (cluster, 1), "fuzz": (fuzz, 120),
}  # fmt: skip
UNNUMBERED = {"readers", "processes", "kills", "disks", "browser", "cluster", "fuzz"}
"""Their trials have no numbers that go on after those of the record."""


# ---- record and page ----------------------------------------------------------------------------------------------


def commit() -> str:
    """The commit that was tried."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def table(kept: dict[str, Found]) -> str:
    """The table of the page."""
    what = {
        "words": "wrong command lines: {commands} commands, words exchanged, mistyped, left out, added",
        "files": "right command lines over a damaged file: tables, records, archives, caches, weights, studies",
        "records": "right command lines over a record, curve, archive or list in which one thing is another or gone",
        "both": "wrong command lines over a damaged file",
        "readers": "{readers} readers, each of a file with drawn damage of its bytes or of what it says",
        "processes": "some of the wrong command lines as processes of their own",
        "kills": "SIGKILL at a random moment of {stages}, each followed by the same call",
        "disks": "{stages} calls that write, with files limited to 0 B, 1, 20 and 200 kB and on a disk of 200 kB",
        "browser": "pages with markup in every text of their records, in Chromium",
        "cluster": "a Slurm of two nodes: sweeps, two processes on two nodes, time limits, cancel, refusal, the "
                   "driver's end, a node that dies",
        "fuzz": "readers, {seconds} s each, fed by a fuzzer that follows their branches: {readers}",
    }  # fmt: skip
    good = {
        "words": "no traceback, nothing written elsewhere, nothing hangs", "files": "the same", "records": "the same",
        "both": "the same", "readers": "what it says, or one line",
        "processes": "no traceback", "kills": "the same record to the digit",
        "disks": "one line, nothing half-written, the same call works once there is room", "browser": "no script runs",
        "cluster": "as it should be", "fuzz": "samples, or one line",
    }  # fmt: skip
    lines = ["| what is tried | trials | found | of |", "|---|---:|---|---|"]
    for kind, found in kept.items():
        values = {**found, "stages": ", ".join(f"{name} ({n})" for name, n in found["stages"].items())
                  if isinstance(found.get("stages"), dict) else found.get("stages")}  # fmt: skip
        bad = found["faults"]
        said = good[kind] if not bad else f"{len(bad)} that are not as they should be: " + "; ".join(
            f"{b['trial']}: {_short(b['problem'])}" for b in bad
        )  # fmt: skip
        if mended := found.get("mended"):
            said += f"; {len(mended)} found a fault, were mended and tried again"
        lines.append(f"| {what[kind].format(**values)} | {found['trials']:,} | {said} | {found['date']} |")
    return "\n".join(lines)


def _short(text: str) -> str:
    return re.sub(r"\s+", " ", text)[:120].replace("|", "/")


def page() -> str:
    """The page with the table of the record."""
    text = PAGE.read_text()
    head, _, rest = text.partition(MARKS[0])
    _, _, tail = rest.partition(MARKS[1])
    return f"{head}{MARKS[0]}\n{table(json.loads(RECORD.read_text()))}\n{MARKS[1]}{tail}"


def again() -> int:
    """Do those trials of the record again that found a fault; what is mended is counted as such."""
    record = Path(os.environ.get("LUMOS_RELIABILITY", RECORD))
    kept = json.loads(record.read_text())
    for kind, found in kept.items():
        left = []
        for fault in found["faults"]:
            name, _, number = fault["trial"].partition(":")
            once = (
                KINDS[name][0](KINDS[name][1], int(number))
                if name in KINDS and number.isdigit()
                else {"faults": [fault]}
            )
            bad = [f for f in once["faults"] if f["problem"]]
            left += bad
            found["mended"] = [*found.get("mended", []), *([] if bad else [fault])]
        kept[kind] = found | {"faults": left}
    record.write_text(json.dumps(kept, indent=1) + "\n")
    return sum(len(found["faults"]) for found in kept.values())


def together(before: Found, found: Found) -> Found:
    """The record of trials, and of more of the same kind after them."""
    sums = {key: round(before[key] + found[key], 1) for key in ("trials", "minutes")}
    return before | found | sums | {
        "ends": dict(Counter(before["ends"]) + Counter(found["ends"])),
        "commands": max(before["commands"], found["commands"]),
        "longest_seconds": max(before["longest_seconds"], found["longest_seconds"]),
        "faults": before["faults"] + found["faults"],
    }  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Do the trials of these kinds, or make the page; returns how many kinds found a fault."""
    if arguments in (["--page"], ["--check"]):
        if arguments == ["--check"]:
            return int(page() != PAGE.read_text())
        PAGE.write_text(page())
        return 0
    faults = 0
    if arguments == ["--again"]:
        return again()
    if not arguments or {re.split("[:+=]", word)[0] for word in arguments} - set(KINDS):
        print(__doc__)
        return 2
    for word in arguments:
        name, _, number = word.partition(":")
        if number:
            KINDS[name][0](KINDS[name][1], int(number))
            continue
        more = "+" in word
        if more and word.partition("+")[0] in UNNUMBERED:
            print(f"{word}: this kind has no more of the same; say {word.replace('+', '=')}")
            return 2
        name, _, count = word.partition("+" if more else "=")
        call, usual = KINDS[name]
        began = time.monotonic()
        record = Path(os.environ.get("LUMOS_RELIABILITY", RECORD))
        before = json.loads(record.read_text()).get(name) if more else None
        found = call(int(count), first=before["trials"]) if before else call(int(count or usual))
        found |= {"date": datetime.now(UTC).date().isoformat(), "commit": commit(), "python": platform.python_version(),
                  "minutes": round((time.monotonic() - began) / 60, 1)}  # fmt: skip
        faults += bool(found["faults"])
        found = together(before, found) if before else found
        kept = json.loads(record.read_text()) if record.exists() else {}
        kept[name] = found
        record.write_text(json.dumps({kind: kept[kind] for kind in KINDS if kind in kept}, indent=1) + "\n")
        print(
            f"{name}: {found['trials']} trials, {len(found['faults'])} faults, {found['minutes']} minutes", flush=True
        )
    return faults


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
