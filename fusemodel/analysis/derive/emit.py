"""Names for new tensors and ranks, and equations put together into a checked cascade."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fusemodel.analysis.derive.terms import Mono
from fusemodel.cascade import parse_cascade
from fusemodel.cascade.ir import Access, Cascade, Einsum, Expr, RankValue, accesses, reads
from fusemodel.cascade.printer import format_cascade

MAX_NAME = 8


@dataclass
class Names:
    """Hands out names that are neither tensors, ranks, nor extents of ranks."""

    used: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, cascade: Cascade) -> Names:
        return cls({*cascade.tensors, *cascade.ranks, *(r.upper() for r in cascade.ranks), "inf", "where"})

    def fresh(self, wanted: str) -> str:
        name, number = wanted, 2
        while name in self.used:
            name, number = f"{wanted}_{number}", number + 1
        self.used.add(name)
        return name

    def rank(self, wanted: str) -> str:
        """A rank whose extent's name is free as well."""
        name, number = wanted, 2
        while name in self.used or name.upper() in self.used:
            name, number = f"{wanted}_{number}", number + 1
        self.used |= {name, name.upper()}
        return name


def name_of_product(m: Mono) -> str:
    """A name after the tensors of a product: ``SNV`` for ``SN * V``."""
    names: list[str] = []
    for a, p in m.powers:
        tensors = [x.tensor for x in accesses(a)][:2]
        names += tensors * (int(abs(p)) if abs(p) in (1, 2) else 1)
    text = "".join(names if len(names) != 1 else ["S", *names])
    if m.exponent:
        text += "E"
    return text if text and len(text) <= MAX_NAME else "ACC"


def rank_indices(ranks: Iterable[str]) -> tuple[Expr, ...]:
    return tuple(RankValue(r) for r in ranks)


def without_dead(cascade: Cascade, einsums: Sequence[Einsum]) -> tuple[Einsum, ...]:
    """The equations that an output needs."""
    by_name: dict[str, list[Einsum]] = {}
    for e in einsums:
        by_name.setdefault(e.name, []).append(e)
    needed: set[str] = set()
    todo = list(cascade.outputs)
    while todo:
        name = todo.pop()
        if name not in needed:
            needed.add(name)
            todo += [a.tensor for e in by_name.get(name, ()) for a in reads(e)]
    return tuple(e for e in einsums if e.name in needed)


def assemble(
    cascade: Cascade,
    einsums: Sequence[Einsum],
    *,
    ranks: Mapping[str, Expr] | None = None,
    split: Mapping[str, tuple[str, str]] | None = None,
    test: Mapping[str, int] | None = None,
) -> Cascade:
    """A checked cascade with these equations, read back from its own text; InputError where it is not legal."""
    kept = without_dead(cascade, einsums)
    used = {a.tensor for e in kept for a in reads(e)}
    text = format_cascade(
        replace(
            cascade,
            einsums=kept,
            inputs={n: r for n, r in cascade.inputs.items() if n in used},
            ranks={**cascade.ranks, **(ranks or {})},
            split={**cascade.split, **(split or {})},
            test={**cascade.test, **(test or {})} if cascade.test else {},
        )
    )
    return parse_cascade(text, cascade.file or f"{cascade.name} (derived)")


def access(tensor: str, ranks: Iterable[str]) -> Access:
    return Access(tensor, rank_indices(ranks))
