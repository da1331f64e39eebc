"""Finding files: a NAME is looked up in the library, a path is read."""

from __future__ import annotations

import os
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from fusemodel.errors import MAX_NAME, InputError, Where, unknown
from fusemodel.yamlfile import Document, nearest_file

#: What the library holds, by the name of its folder.
KINDS = {
    "cascades": "einsums", "archs": "archs", "mappings": "mappings", "workloads": "workloads",
    "comparisons": "comparisons", "spaces": "spaces",
}  # fmt: skip
_SUFFIXES = (".yaml", ".yml")


@cache
def root() -> Path:
    """The folder of the library: inside the installed package, or beside it in a checkout."""
    packaged = Path(__file__).parent / "library"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent


def modified_ns(path: str | Path) -> int:
    """When a file was last changed, 0 if it is not there: what is kept of a file holds for one such time."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def check_writable(path: str) -> None:
    """InputError where a file cannot be written, for those who ask before long work."""
    target = Path(path)
    if target.is_dir():
        raise InputError("this is a directory", Where(path), expected="the name of a file to write")
    if not target.parent.is_dir():
        raise InputError(f"cannot be written: there is no folder {str(target.parent)!r}", Where(path))
    if not os.access(target.parent, os.W_OK):
        raise InputError("cannot be written: Permission denied", Where(path))


def write_text(path: str, text: str) -> None:
    """Write a file whole or not at all: beside it first, then renamed."""
    check_writable(path)
    target = Path(path)
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(target)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise InputError(f"cannot be written: {error.strerror or error}", Where(path)) from None


def make_folder(path: str) -> None:
    """Make a folder to write files to, if it is not there."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be made: {error.strerror or error}", Where(path), expected="a folder") from None


def copy_starter(folder: str) -> list[str]:
    """Write the starter files into a folder; InputError, and nothing written, if one of them is there already."""
    files = sorted((root() / "starter").glob("*.yaml"))
    make_folder(folder)
    targets = [Path(folder) / f.name for f in files]
    for target in targets:
        if exists(target):
            raise InputError("is there already, and is left alone", Where(str(target)), expected="an empty folder")
    for file, target in zip(files, targets, strict=True):
        write_text(str(target), file.read_text(encoding="utf-8"))
    return [str(t) for t in targets]


def published_dir() -> Path:
    """Figures published by others, as tables with citations."""
    packaged = root() / "published"
    return packaged if packaged.is_dir() else root() / "validation" / "published"


def gpu_dir() -> Path:
    """Rules that say which mapping predicts a measured kernel, and what was fitted."""
    packaged = root() / "gpu"
    return packaged if packaged.is_dir() else root() / "validation" / "gpu"


def gpu_rules() -> Path:
    """The library's rules for measured kernels."""
    return gpu_dir() / "kernels.yaml"


def references_dir() -> Path:
    """Python files, one a family of cascades, with a plain function for each cascade that its numbers are checked
    against."""
    packaged = root() / "references"
    return packaged if packaged.is_dir() else root() / "tests" / "references" / "mechanisms"


@cache
def reference_modules() -> list[str]:
    """The families that have references."""
    return sorted(p.stem for p in references_dir().glob("*.py") if not p.stem.startswith("_"))


@cache
def names(kind: str) -> dict[str, Path]:
    """Every library file of a kind (a key of :data:`KINDS`), by name."""
    return {p.stem: p for p in sorted((root() / KINDS[kind]).rglob("*.yaml"))}


def exists(path: Path) -> bool:
    """Whether a path is there; not where its name is too long or a folder may not be read."""
    try:
        return path.exists()
    except OSError:
        return False


#: The fields of which only files of a kind have one, in the order in which they are looked for.
_SIGNS = {
    "cascades": ("einsums",), "archs": ("levels",), "mappings": ("cascade",), "spaces": ("cascades",),
    "workloads": ("ranks",), "comparisons": ("rankings", "sections"),
}  # fmt: skip
_TITLES = {
    "cascades": "a cascade", "archs": "an architecture", "mappings": "a mapping", "workloads": "a workload",
    "comparisons": "a comparison", "spaces": "a space of architectures",
}  # fmt: skip


def kind_of_document(doc: Document) -> str:
    """What a file holds, by its fields; InputError if that is nothing known."""
    found = _kind(doc)
    if found:
        return found
    raise InputError(
        "this is no cascade, architecture, mapping, workload, comparison or space", Where(doc.file, 1, 1),
        expected=f"a field {', '.join(f'`{s}`' for signs in _SIGNS.values() for s in signs)}",
    )  # fmt: skip


def check_kind(doc: Document, kind: str) -> None:
    """Raise InputError if a file is plainly of another kind."""
    if any(s in doc.data for s in _SIGNS[kind]):
        return
    found = _kind(doc, kind) or kind
    if found != kind:
        raise InputError(f"this is {_TITLES[found]}", Where(doc.file, 1, 1), expected=_TITLES[kind])


def _kind(doc: Document, wanted: str | None = None) -> str | None:
    """The kind whose sign a file has. One that has none, or only ``ranks``, which other kinds have too, but a field
    that is nearly a sign (of the kind wanted) is told so."""
    found = next((k for k, signs in _SIGNS.items() if any(s in doc.data for s in signs)), None)
    if found in (None, "workloads") and wanted != "workloads":
        signs = [s for k in ([wanted] if wanted else _SIGNS) if k != "workloads" for s in _SIGNS[k]]
        known = {s for names_of in _SIGNS.values() for s in names_of}
        for key in (k for k in doc.data if k not in known):
            near = get_close_matches(str(key).lower(), signs, n=1, cutoff=0.75)
            if near and len(str(key)) <= MAX_NAME:
                what = next(_TITLES[k] for k, names_of in _SIGNS.items() if near[0] in names_of)
                raise InputError(f"unknown field {key!r}", doc.where_key(key), expected=f"`{near[0]}` in {what}",
                                 nearest=near[0])  # fmt: skip
    return found


def called(kind: str, name: str, beside: str = "") -> str:
    """A library name as it is; a path so that it holds wherever the file that names it is."""
    return name if name in names(kind) else str(find(kind, name, beside=beside).absolute())


def find(kind: str, name: str, *, beside: str = "", where: Where | None = None) -> Path:
    """The file that ``name`` stands for: a path, one beside the file ``beside``, or a library name."""
    if not name or "\0" in name:
        raise InputError(f"{name!r} is neither a name nor a path", where or Where(), expected=f"one of the {kind}")
    looks_like_path = "/" in name or "\\" in name or name.endswith(_SUFFIXES)
    candidates = [Path(beside).parent / name] if beside else []
    candidates.append(Path(name))
    if looks_like_path:
        for path in candidates:
            if exists(path) and not (where and path.is_dir()):
                return path
        if where:
            if any(exists(path) for path in candidates):
                raise InputError(f"{name!r} is a directory", where, expected="a YAML file")
            raise InputError(f"no such file: {name!r}", where, nearest=nearest_file(candidates[0]))
        return candidates[0]
    known = names(kind)
    if name in known:
        return known[name]
    for path in candidates:
        for suffix in _SUFFIXES:
            named = path.parent / (path.name + suffix)
            if path.name and exists(named) and named.is_file():
                return named
        if exists(path):
            return path
    raise unknown(kind.removesuffix("s"), name, known, where or Where())
