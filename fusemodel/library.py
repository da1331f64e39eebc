"""Finding files: a NAME is looked up in the library, a path is read."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from fusemodel.errors import InputError, Where, unknown

#: What the library holds, by the name of its folder.
KINDS = {"cascades": "einsums", "archs": "archs", "mappings": "mappings", "workloads": "workloads"}
_SUFFIXES = (".yaml", ".yml")


@cache
def root() -> Path:
    """The folder of the library: inside the installed package, or beside it in a checkout."""
    packaged = Path(__file__).parent / "library"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent


def published_dir() -> Path:
    """Figures published by others, as tables with citations."""
    packaged = root() / "published"
    return packaged if packaged.is_dir() else root() / "validation" / "published"


@cache
def names(kind: str) -> dict[str, Path]:
    """Every library file of a kind (a key of :data:`KINDS`), by name."""
    return {p.stem: p for p in sorted((root() / KINDS[kind]).rglob("*.yaml"))}


def find(kind: str, name: str, *, beside: str = "", where: Where | None = None) -> Path:
    """The file that ``name`` stands for: a path, one beside the file ``beside``, or a library name."""
    if not name or "\0" in name:
        raise InputError(f"{name!r} is neither a name nor a path", where or Where(), expected=f"one of the {kind}")
    looks_like_path = "/" in name or "\\" in name or name.endswith(_SUFFIXES)
    candidates = [Path(beside).parent / name] if beside else []
    candidates.append(Path(name))
    if looks_like_path:
        for path in candidates:
            if path.exists():
                return path
        if where and not candidates[0].exists():
            raise InputError(f"no such file: {name}", where)
        return candidates[0]
    known = names(kind)
    if name in known:
        return known[name]
    for path in candidates:
        for suffix in _SUFFIXES:
            if (beside or suffix) and path.with_name(path.name + suffix).is_file():
                return path.with_name(path.name + suffix)
        if path.exists():
            return path
    raise unknown(kind.removesuffix("s"), name, known, where or Where())
