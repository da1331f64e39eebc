"""Workload files: extents for a model, and which ranks are its sequence length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from fusemodel.cascade.ir import Cascade
from fusemodel.cascade.load import parse_size
from fusemodel.errors import NOWHERE, InputError, Where, listed, unknown
from fusemodel.library import check_kind, find, modified_ns
from fusemodel.yamlfile import Document, check_fields, parse_yaml, read_yaml

#: The ranks `--seq` sets where neither the workload nor the cascade says: query and key positions.
SEQUENCE = ("p", "m")


@dataclass(frozen=True)
class Workload:
    """Extents by rank; ranks that a cascade does not have are left out when it is applied."""

    name: str
    ranks: Mapping[str, int]
    sequence: tuple[str, ...] = ()
    about: str = ""
    source: str = ""
    at: Where = field(default=NOWHERE, compare=False)


def load_workload(name: str) -> Workload:
    """A workload by library name or path."""
    path = find("workloads", name)
    return _cached(str(path), modified_ns(path))


@lru_cache(maxsize=64)
def _cached(path: str, _stamp: int) -> Workload:
    return build_workload(read_yaml(path))


def parse_workload(text: str, file: str = "<text>") -> Workload:
    """A workload from the text of a file."""
    return build_workload(parse_yaml(text, file))


def build_workload(doc: Document) -> Workload:
    """A workload from a loaded file; InputError with a place for anything wrong with it."""
    check_kind(doc, "workloads")
    data = check_fields(doc, (), doc.data, ("name", "about", "source", "ranks", "sequence"))
    ranks = data.get("ranks")
    if not isinstance(ranks, dict) or not ranks:
        raise InputError("field 'ranks' is missing or empty", doc.where("ranks"), expected="`ranks: {b: 64, ...}`")
    sequence = data.get("sequence") or []
    if not isinstance(sequence, list) or not all(isinstance(r, str) for r in sequence):
        raise InputError("'sequence' is not a list of ranks", doc.where("sequence"), expected="a list such as [p, m]")
    for name in ("name", "about", "source"):
        if isinstance(data.get(name), (list, dict)):
            raise InputError(f"{name!r} is not text", doc.where(name), expected="text")
    sizes = {r: parse_size(v, f"the extent of rank {r!r}", doc.where("ranks", r)) for r, v in ranks.items()}
    return Workload(
        str(data.get("name") or doc.file), sizes, tuple(sequence), str(data.get("about") or ""),
        str(data.get("source") or ""), doc.where("sequence"),
    )  # fmt: skip


def extents_for(cascade: Cascade, workload: Workload | None, seq: int | None) -> dict[str, int]:
    """The extents that a workload and a sequence length replace in a cascade."""
    result = {r: n for r, n in workload.ranks.items() if r in cascade.ranks} if workload else {}
    if seq is not None:
        named = (workload.sequence if workload else ()) or cascade.sequence or SEQUENCE
        ranks = [r for r in named if r in cascade.ranks]
        if not ranks:
            where = workload.at if workload and workload.sequence else Where(cascade.file, 1, 1)
            raise InputError(
                f"no rank of {cascade.name!r} is its sequence length", where,
                expected=f"a `sequence` of {listed(cascade.ranks)}",
            )  # fmt: skip
        result |= dict.fromkeys(ranks, seq)
    return result


def check_set(cascade: Cascade, name: str, parts: Mapping[str, object]) -> None:
    """Raise InputError unless ``name`` can be set: a rank of the cascade or a tile of the mapping."""
    if name not in cascade.ranks and name not in parts:
        raise unknown("rank or tile", name, [*cascade.ranks, *parts])
