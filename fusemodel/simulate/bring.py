"""Movements of a group as the closed form counts them, one for each tile that is brought: which loops bring it,
where its words go, how many there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fusemodel.model.amounts import product
from fusemodel.model.elements import Touch, touched
from fusemodel.model.forms import Form, Linear
from fusemodel.model.frame import Frame
from fusemodel.model.movement import brought_tiles, brought_words, ends_of, keyed
from fusemodel.model.plan import Move, Plan
from fusemodel.model.space import Space
from fusemodel.simulate.tables import table_of, total_of
from fusemodel.simulate.tasks import Table, uniform


@dataclass(frozen=True)
class Bring:
    """``words`` in all, brought at each step of ``loops``; ``flows`` are (level, written, share of the words)."""

    tensor: str
    source: str | None
    sink: str | None
    kind: str  # "fill", "read", "write" or "partial"
    einsums: tuple[str, ...]
    moves: tuple[Move, ...]
    loops: tuple[str, ...]
    words: float
    flows: tuple[tuple[str, bool, float], ...]
    inside: bool  # the tile lives in a loop that only some Einsums run


def brings(
    plan: Plan, frames: Mapping[str, Frame], sizes: Mapping[str, int], space: Space, notes: list[str]
) -> list[Bring]:
    """Every movement of a plan (settled), as :func:`fusemodel.model.cost.cost_of` counts it."""
    found: list[Bring] = []
    for moves in keyed(plan, sizes):
        # what a move is worth at each level is linear in its words, and the same for all moves of one key
        flows = tuple((level, write, float(share)) for level, share, write in ends_of(plan, moves[0], 1.0, space))
        for alike, loops in brought_tiles(plan, moves, frames, sizes):
            words = float(brought_words(alike, loops, frames, sizes, notes))
            first = alike[0]
            kind = str(first.key[3])
            einsums = tuple(dict.fromkeys(m.tile.einsum for m in alike))
            found.append(
                Bring(first.tensor, first.source, first.sink, kind, einsums, tuple(alike), loops, words, flows,
                      first.nest is not None)
            )  # fmt: skip
    return found


def words_of(
    bring: Bring, frames: Mapping[str, Frame], sizes: Mapping[str, int], loops: tuple[str, ...], pieces: tuple[str, ...]
) -> tuple[Table, bool]:
    """Words at each step of the lowered ``loops`` and of the ``pieces`` that a tile is brought in; and whether every
    step has its own count (else the mean)."""
    every = (*loops, *pieces)
    firings = product(every, sizes)
    mean = uniform(bring.words / firings)
    firsts: tuple[str, ...] = ()
    if bring.kind == "partial":
        used = {x for d in bring.moves[0].tile.dims for x in d.all_leaves}
        firsts = tuple(x for x in loops if x not in used)
        if not firsts:
            return mean, bring.words == 0
    exact, conditional = (
        True,
        any(frames[e].conditional or frames[e].roots for e in bring.einsums) or any(m.tile.guards for m in bring.moves),
    )
    table: Table | None = mean
    if conditional:
        parts = list({p.key(): p for m in bring.moves for p in frames[m.tile.einsum].touches(m.tile, sizes)}.values())
        table = _touched_table(bring, parts, frames, sizes, loops)
        if table is not None:
            table = table.scaled(1 / product(pieces, sizes))
            table = Table(table.values, tuple((*c, *(0 for _ in pieces)) for c in table.coefficients), table.constants,
                          table.least)  # fmt: skip
    if firsts and table is not None:
        table = _after_first(table, every, firsts, sizes)
        total = total_of(table, [sizes[x] for x in every])
        if not total:
            return mean, False
        return table.scaled(bring.words / total), not conditional
    if table is None:
        return mean, False
    if conditional and prod_small(every, sizes):
        total = total_of(table, [sizes[x] for x in every])
        exact = abs(total - bring.words) <= 1e-9 * max(1.0, bring.words)
    return (table, True) if exact else (mean, False)


def prod_small(loops: tuple[str, ...], sizes: Mapping[str, int]) -> bool:
    return product(loops, sizes) <= 2**32


def _touched_table(
    bring: Bring, parts: list[Touch], frames: Mapping[str, Frame], sizes: Mapping[str, int], loops: tuple[str, ...]
) -> Table | None:
    """Elements touched at each step of the loops; brought loops that are not lowered stay."""
    if not parts or len({p.limits for p in parts}) > 1 or len(parts) > 4:
        return None
    outside = set(loops)
    shifts = []
    for p in parts:
        if any(i is None for i in p.index):
            return None
        shifts.append(
            tuple(tuple(sorted((x, c) for x, c in i.coefficients.items() if x in outside)) for i in p.index if i)
        )
        inner = [
            Linear({x: c for x, c in i.coefficients.items() if x not in outside}, i.constant) for i in p.index if i
        ]
        if any(i.constant < 0 or any(c < 0 for c in i.coefficients.values()) for i in inner):
            return None
    if len(set(shifts)) > 1:
        return None
    every = {x: n for m in bring.moves for x, n in frames[m.tile.einsum].with_quotients(sizes).items()}
    stay = tuple(x for x in bring.loops if x not in outside)

    def counted(pieces: list[list[Form]]) -> float | None:
        joined = []
        for p, forms in zip(parts, pieces, strict=True):
            index = tuple(
                Linear({x: c for x, c in i.coefficients.items() if x not in outside}, i.constant) if i else None
                for i in p.index
            )
            joined.append(Touch(index, p.data, p.limits, tuple(forms)))
        words, exact = touched(joined, stay, every)
        return float(words) if exact else None

    return table_of([p.forms for p in parts], loops, every, counted)


def _after_first(table: Table, loops: tuple[str, ...], firsts: tuple[str, ...], sizes: Mapping[str, int]) -> Table:
    """Nothing at the steps at which all of ``firsts`` are at their first."""
    import numpy as np

    values = np.stack([np.zeros_like(table.values), table.values], axis=-1)
    form = tuple(int(x in firsts) for x in loops)
    return Table(
        values,
        (*((*c, *(0 for _ in range(len(loops) - len(c)))) for c in table.coefficients), form),
        (*table.constants, 0),
        (*table.least, 0),
    )
