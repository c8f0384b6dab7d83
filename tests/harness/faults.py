"""Damage of files: what disks, networks and other programs do to bytes, and what hands do to JSON and tables."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from pathlib import Path
from typing import Any

WRONG: tuple[Any, ...] = (
    None, "", "text", -1, 0, 1.5, 1e308, 2**70, True, [], {}, [1, "text"], {"a": 1}, [None], [[]],
    "<script>alert(1)</script>", "${oc.env:HOME}", "../../x", "a\nb", "\ud800", "[/b] [red]",
)  # fmt: skip
"""Values of kinds that a place of a JSON file is not meant for."""

CELLS = ("", "text", "nan", "inf", "-1e999", "1.5", "-1", "1" * 400, '"', "a,b", "<b>", "\x00", "é")


def damaged(content: bytes, draws: random.Random) -> bytes:
    """Damage of a kind that disks, networks and other programs do."""
    size = len(content)
    at = draws.randrange(size + 1)
    kind = draws.randrange(8)
    if kind == 0:
        changed = bytearray(content)
        for _ in range(draws.choice([1, 3, 20]) if size else 0):
            changed[draws.randrange(size)] = draws.randrange(256)
        return bytes(changed)
    return [
        b"",
        content[:at],
        content[:at] + bytes(draws.choice([4, 64, 1000])) + content[at + 64 :],
        content[:at] + draws.randbytes(draws.choice([1, 4, 100])) + content[at:],
        content[:at] + content[at // 2 :],
        draws.randbytes(200),
        b"hello, world\n1 2 3\n,,,\nnan,inf,-1e999\n",
        content[size // 2 :] + content[: size // 2],
    ][kind - 1 if kind else 0]


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All places of a JSON value, as the keys that lead there."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [above, *(place for key, part in inner for place in places(part, (*above, key)))]


def changed(value: Any, draws: random.Random) -> Any:
    """Put a wrong value at one place of a JSON value, or take the place away."""
    place = draws.choice(places(value))
    if not place:
        return draws.choice(WRONG)
    holder = value
    for key in place[:-1]:
        holder = holder[key]
    if draws.random() < 0.3:
        del holder[place[-1]]
    elif isinstance(holder, dict) and draws.random() < 0.1:
        holder[draws.choice(["new", "", "<b>", "a.b"])] = holder.pop(place[-1])
    else:
        holder[place[-1]] = draws.choice(WRONG)
    return value


def _changed_json(text: str, draws: random.Random) -> str:
    return json.dumps(changed(json.loads(text), draws))


def _changed_lines(text: str, draws: random.Random) -> str:
    lines = text.splitlines()
    number = draws.randrange(len(lines))
    if lines[number].startswith("{"):
        lines[number] = _changed_json(lines[number], draws)
        return "\n".join(lines) + "\n"
    cells = lines[number].split(",")
    kind = draws.randrange(4)
    if kind == 0:
        cells.pop(draws.randrange(len(cells)))
    elif kind == 1:
        cells.append(draws.choice(CELLS))
    else:
        cells[draws.randrange(len(cells))] = draws.choice(CELLS)
    lines[number] = ",".join(cells)
    return "\n".join(lines) + "\n"


def damage(file: Path, draws: random.Random, share: float = 0.6) -> str:
    """Damage a file in place, as bytes or, for a share of those that are text, in what they say; returns which."""
    content = file.read_bytes()
    packed = file.suffix == ".gz"
    if draws.random() < share:
        try:
            text = (gzip.decompress(content) if packed else content).decode()
            change = _changed_json if file.suffix == ".json" else _changed_lines
            new = change(text, draws).encode("utf-8", "surrogatepass")
            file.write_bytes(gzip.compress(new, mtime=0) if packed else new)
            return "meaning"
        except (ValueError, IndexError, OSError, EOFError, zlib.error):  # damaged already, or no text
            pass
    file.write_bytes(damaged(content, draws))
    return "bytes"
