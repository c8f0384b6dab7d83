"""One self-contained page: every table and figure, and the record and command behind every number."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lumos.files import atomic
from lumos.suite.report.paper_tables import Evaluation
from lumos.suite.report.quantities import Record
from lumos.suite.report.results import method_of
from lumos.suite.report.table import Table

WIDE = 432
"""Figures wider than this many points take the width of the page."""


@dataclass(frozen=True)
class Picture:
    """A figure as the page has it; ``source`` is a data URL, so that nothing is loaded from anywhere."""

    name: str
    title: str
    source: str
    wide: bool


def write(path: Path, evaluation: Evaluation, tables: Sequence[Table], figures: Mapping[str, tuple[str, Path]]) -> None:
    """Write the page.

    Args:
        path: the file, ``*.html``.
        evaluation: the records behind the tables.
        tables: those with rows are shown.
        figures: the title and the SVG file of each figure, by its name.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"method": method_of, "pretty": _pretty}
    records = list(reversed(evaluation.results.records))
    script = (Path(__file__).parent / "page.js").read_text()
    text = environment.get_template("page.html").render(
        policy=_policy(script),
        script=Markup(script),
        facts=_facts(evaluation),
        figures=[_picture(name, title, file) for name, (title, file) in figures.items()],
        tables=[table for table in tables if table.rows],
        records=records,
        known={r["run_id"] for r in records},
    )
    with atomic(path) as temporary:
        temporary.write_text(text)


def _policy(script: str) -> str:
    """The page's content security policy: its own script and pictures, and nothing from elsewhere."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _picture(name: str, title: str, file: Path) -> Picture:
    """Read a figure. It is shown as an image, so that names inside of two SVGs cannot meet."""
    svg = file.read_bytes()
    width = float(svg.split(b'width="', 1)[1].split(b"pt", 1)[0])
    return Picture(name, title, f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}", width > WIDE)


def _pretty(entry: Record) -> str:
    return json.dumps(entry, indent=1, ensure_ascii=False)


def _facts(evaluation: Evaluation) -> str:
    records = evaluation.results.records
    if not records:
        return "No records."
    made = [r["provenance"] for r in records]
    days = sorted(str(p["started_utc"])[:10] for p in made)
    devices = ", ".join(sorted({str(p.get("device")) for p in made}))
    commits = ", ".join(sorted({(p.get("git") or "unknown")[:7] for p in made}))
    count = len(evaluation.headlines)
    return (
        f"{len(records)} runs of {count} workloads, {days[0]} to {days[-1]}, on {devices}; commits {commits}. A number "
        "that is a link leads to its record; a click on a column sorts; a click on a figure enlarges it, a wheel zooms."
    )
