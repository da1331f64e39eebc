"""Workload files: extents for a model, and which ranks are its sequence length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fusemodel.cascade.ir import Cascade
from fusemodel.cascade.load import parse_size
from fusemodel.errors import InputError, Where, unknown
from fusemodel.library import find
from fusemodel.yamlfile import check_fields, read_yaml

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
    file: str = field(default="", compare=False)


def load_workload(name: str) -> Workload:
    """A workload by library name or path."""
    doc = read_yaml(find("workloads", name))
    data = check_fields(doc, (), doc.data, ("name", "about", "source", "ranks", "sequence"))
    ranks = data.get("ranks")
    if not isinstance(ranks, dict) or not ranks:
        raise InputError("field 'ranks' is missing or empty", doc.where("ranks"), expected="`ranks: {b: 64, ...}`")
    sequence = data.get("sequence") or []
    if not isinstance(sequence, list) or not all(isinstance(r, str) for r in sequence):
        raise InputError("'sequence' is not a list of ranks", doc.where("sequence"), expected="a list such as [p, m]")
    sizes = {r: parse_size(v, f"the extent of rank {r!r}", doc.where("ranks", r)) for r, v in ranks.items()}
    return Workload(
        str(data.get("name") or name), sizes, tuple(sequence), str(data.get("about") or ""),
        str(data.get("source") or ""), doc.file,
    )  # fmt: skip


def extents_for(cascade: Cascade, workload: Workload | None, seq: int | None) -> dict[str, int]:
    """The extents that a workload and a sequence length replace in a cascade."""
    result = {r: n for r, n in workload.ranks.items() if r in cascade.ranks} if workload else {}
    if seq is not None:
        named = (workload.sequence if workload else ()) or cascade.sequence or SEQUENCE
        ranks = [r for r in named if r in cascade.ranks]
        if not ranks:
            raise InputError(
                f"no rank of {cascade.name!r} is its sequence length", Where(cascade.file),
                expected="`sequence: [p, m]` in the cascade or workload",
            )  # fmt: skip
        result |= dict.fromkeys(ranks, seq)
    return result


def check_set(cascade: Cascade, name: str, parts: Mapping[str, object]) -> None:
    """Raise InputError unless ``name`` can be set: a rank of the cascade or a tile of the mapping."""
    if name not in cascade.ranks and name not in parts:
        raise unknown("rank or tile", name, [*cascade.ranks, *parts])
