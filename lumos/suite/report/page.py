"""One self-contained page: every table and figure, and the record and command behind every number."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from lumos.files import atomic
from lumos.suite.report.paper import Evaluation
from lumos.suite.report.quantities import Record
from lumos.suite.report.results import method_of
from lumos.suite.report.sweeps import as_json
from lumos.suite.report.tables import Table, to_html

TEMPLATE = Path(__file__).with_name("page.html")
WIDE = 600
"""Figures wider than this many points take the width of the page."""


def write(path: Path, evaluation: Evaluation, tables: Sequence[Table], figures: Mapping[str, tuple[str, Path]]) -> None:
    """Write the page. ``figures`` has the title and the SVG file of each; nothing is loaded from anywhere else."""
    records = list(reversed(evaluation.results.records))
    known = {r["run_id"] for r in records}
    pictures = "\n".join(_figure(name, title, file) for name, (title, file) in figures.items())
    body = [f'<section id="figures"><h2>Figures</h2><div class="figures">{pictures}</div></section>']
    body += [to_html(table, known) for table in tables if table.rows]
    links = [
        ("figures", "Figures"),
        *((t.name, t.title.split(":")[0]) for t in tables if t.rows),
        ("records", "Records"),
    ]
    page = Template(TEMPLATE.read_text()).substitute(
        nav=" ".join(f'<a href="#{name}">{html.escape(title)}</a>' for name, title in links),
        facts=html.escape(_facts(evaluation)),
        body="\n".join(body),
        records="\n".join(_record(r) for r in records) or '<p class="none">There is no record yet.</p>',
    )
    with atomic(path) as temporary:
        temporary.write_text(page)


def _figure(name: str, title: str, file: Path) -> str:
    data = file.read_bytes()
    wide = float(data.split(b'width="', 1)[1].split(b"pt", 1)[0]) > WIDE * 0.72
    # As an image, so that the names inside of two figures cannot meet.
    source = "data:image/svg+xml;base64," + base64.b64encode(data).decode()
    css = ' class="wide"' if wide else ""
    alt = html.escape(title, quote=True)
    return f'<figure id="figure-{name}"{css}><img src="{source}" alt="{alt}"><figcaption>{alt}</figcaption></figure>'


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


def _record(entry: Record) -> str:
    made, run = entry["provenance"], entry["run_id"]
    parts = [entry["workload"], method_of(entry), entry["scale"], f"seed {entry['seed']}", entry["status"]]
    words = html.escape(" ".join([run, *parts]).lower(), quote=True)
    error = entry.get("error") or {}
    line = f"<p>{html.escape(str(error.get('line')))}</p>" if error else ""
    summary = html.escape(" · ".join(parts))
    return (
        f'<details id="run-{run}" data-words="{words}"><summary><b>{run}</b> · {summary}</summary>\n'
        f"{line}<p><code>python {html.escape(made.get('command') or 'run.py')}</code></p>"
        f"<pre>{html.escape(as_json(entry))}</pre></details>"
    )
