"""Write docs/reference/config.md from the comments in conf/, so that it says what every key means and cannot drift.

``python scripts/config_docs.py`` writes it; with ``--check`` it only says whether the file is up to date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
CONF, DOC = PROJECT / "conf", PROJECT / "docs" / "reference" / "config.md"
SKIPPED = ("defaults", "hydra", "_target_")

HEAD = """# Every key of a run

Any key can be set on the command line, `lumos run workload=synthetic lumos.lambda=3e-3 scale=tiny`. Lists of values
make a sweep with `-m`. A value of the form `${by_scale:{…}}` depends on the key `scale`. This page is made from the
comments in `conf/` by `make docs`; do not edit it here.
"""


def keys(path: Path, prefix: str) -> list[tuple[str, str, str]]:
    """(key, default, meaning) of every leaf of one YAML file. Raises ValueError for a key without a comment."""
    rows: list[tuple[str, str, str]] = []
    parents: list[tuple[int, str]] = []
    comment = ""
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        text = line.strip()
        if text.startswith("#"):
            comment = f"{comment} {text[1:].strip()}".strip()
            continue
        match = re.match(r"^(\s*)([\w]+):(?:\s+(.*))?$", line)
        if not match:
            comment = ""
            continue
        indent, key, value = len(match[1]), match[2], (match[3] or "").strip()
        parents = [p for p in parents if p[0] < indent]
        top = parents[0][1] if parents else key
        if top not in SKIPPED:
            name = ".".join([*([prefix] if prefix else []), *(p[1] for p in parents), key])
            if value:
                if not comment:
                    raise ValueError(f"{path}:{number}: {name} has no comment above it that says what it means")
                rows.append((name, value.strip('"'), comment))
        if not value:
            parents.append((indent, key))
        comment = ""
    return rows


def table(rows: list[tuple[str, str, str]]) -> str:
    """A Markdown table."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    return "\n".join(lines + [f"| `{k}` | `{v}` | {m.replace('|', chr(92) + '|')} |" for k, v, m in rows])


def document() -> str:
    """The whole page."""
    parts = [HEAD]
    sections = [("Every run", CONF / "config.yaml", ""), ("The gates", CONF / "lumos/default.yaml", "lumos"),
                ("Training", CONF / "trainer/default.yaml", "trainer"),
                ("Data (`data=generated` or `data=public`)", CONF / "data/generated.yaml", "data")]  # fmt: skip
    sections += [(f"`workload={p.stem}`", p, "workload") for p in sorted((CONF / "workload").glob("*.yaml"))]
    sections += [(f"`method={p.stem}`", p, "method") for p in sorted((CONF / "method").glob("*.yaml"))]
    for title, path, prefix in sections:
        parts.append(f"## {title}\n\n{table(keys(path, prefix))}\n")
    return "\n".join(parts)


def main() -> int:
    """Write or check the page."""
    text = document()
    if "--check" in sys.argv[1:]:
        current = DOC.read_text() if DOC.exists() else ""
        if current != text:
            print(f"{DOC.relative_to(PROJECT)} is not what conf/ says; run `make docs`")
        return int(current != text)
    DOC.parent.mkdir(exist_ok=True)
    DOC.write_text(text)
    print(f"wrote {DOC.relative_to(PROJECT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
