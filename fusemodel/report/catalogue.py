"""The library's cascades as a table for the documentation, computed from their files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from fusemodel.analysis import passes
from fusemodel.analysis.bounds import bounds
from fusemodel.analysis.derive import derive
from fusemodel.cascade import extents_of, load_cascade
from fusemodel.library import names
from fusemodel.quantities import count

_HEAD = """# The cascades of the library

Written by `fusemodel list cascades --out docs/cascades.md`; every number is computed from the files.

* **passes**: over each rank that some form traverses more than once, as written and as `fusemodel derive` reaches.
* **operations**: those of any mapping, at the default extents of the file (the most frequent kinds; absent points cost
  nothing).
* **alive**: words on chip when everything is fused in one loop order, and the ranks they grow with.
* **provenance**: `code` (equations read in official code), `third-party` (in others' code), `paper`, `reconstructed`.
"""
_COLUMNS = ("cascade", "about", "passes", "operations", "alive", "provenance", "source")
_KINDS = 3  # of operations that are shown


def catalogue_row(name: str) -> dict[str, str]:
    """One cascade's row."""
    cascade = load_cascade(name)
    extents = extents_of(cascade)
    found, least = passes(cascade, extents).passes, derive(cascade).passes_after
    limits = bounds(cascade, extents)
    several = [f"{r} {n}" + (f" → {least[r]}" if least.get(r, n) != n else "") for r, n in found.items() if n > 1]
    frequent = sorted(limits.operations_at.items(), key=lambda x: -x[1])[:_KINDS]
    growing = ", ".join(r for r, grows in limits.footprint.grows.items() if grows)
    return {
        "cascade": f"`{name}`",
        "about": cascade.about,
        "passes": ", ".join(several) or "1",
        "operations": ", ".join(f"{kind} {count(n)}" for kind, n in frequent),
        "alive": count(limits.footprint.words_at) + (f" ({growing})" if growing else ""),
        "provenance": cascade.provenance or "",
        "source": cascade.source or "",
    }


def catalogue(
    files: Mapping[str, Path] | None = None, progress: Callable[[str], None] = lambda _: None, processes: int = 2
) -> str:
    """The whole table in Markdown, a section for each family; rows are computed in several processes."""
    files = names("cascades") if files is None else files
    families: dict[str, list[dict[str, str]]] = {}
    for name, row in _rows(files, processes):
        families.setdefault(files[name].parent.name, []).append(row)
        progress(name)
    parts = [_HEAD]
    for family, rows in sorted(families.items()):
        lines = [_line(_COLUMNS), _line("---" for _ in _COLUMNS), *(_line(r[c] for c in _COLUMNS) for r in rows)]
        parts.append(f"## {family}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _rows(files: Mapping[str, Path], processes: int) -> Iterable[tuple[str, dict[str, str]]]:
    if processes < 2:
        yield from ((n, catalogue_row(n)) for n in files)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from zip(files, pool.map(catalogue_row, files), strict=True)


def _line(cells: Iterable[Any]) -> str:
    return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"
