"""Loops that keep two Einsums apart: they are around one of them only, so that a tile which one made under a loop
inside has been replaced when the other comes to it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from fusemodel.errors import InputError
from fusemodel.mapping.spec import Keep
from fusemodel.model.amounts import Amount, Sizes, product


@dataclass(frozen=True, slots=True)
class Parting:
    """``loop`` keeps two Einsums apart where it has several steps, and one of the loops ``inside`` too (if there are
    any): it is around one of them only, and those put another tile in the place of the one they have in common."""

    loop: str
    inside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replaced:
    """A tensor that an Einsum takes from a level where its tile has been replaced since it was made: where one of
    ``partings`` keeps the two apart, the mapping is not legal."""

    tensor: str
    keep: Keep
    reader: str
    partings: tuple[Parting, ...]

    def problem(self, sizes: Sizes, outermost: str) -> InputError:
        loop = next(p.loop for p in self.partings if kept_apart([p], sizes))
        return InputError(
            f"{self.reader!r} takes {self.tensor!r} from {self.keep.level!r}, where the tile under {self.keep.under!r} "
            f"has been replaced since {self.tensor!r} was computed: loop {loop!r} is around one of the two only",
            self.keep.at,
            expected=f"a tile under a loop outside {loop!r}, or `{outermost}: {{{self.tensor}: all}}` as well",
        )  # fmt: skip


def kept_apart(partings: Iterable[Parting], sizes: Sizes) -> Amount:
    """Whether one of some loops keeps two Einsums apart."""
    found: Amount = False
    for p in partings:
        steps = sizes[p.loop] > 1
        found = found | (steps & (product(p.inside, sizes) > 1) if p.inside else steps)
    return found


def around_one(a: Sequence[str], b: Sequence[str], along: Collection[str]) -> tuple[Parting, ...]:
    """Of the loops outside a tile in two nests, those that one of them has, and inside which the tile, of a tensor
    ``along`` some leaves, is replaced."""
    found = []
    for mine, other in ((a, b), (b, a)):
        for i, x in enumerate(mine):
            inside = tuple(y for y in mine[i + 1 :] if y in along)
            if x not in other and inside:
                found.append(Parting(x, inside))
    return tuple(found)


__all__ = ["Parting", "Replaced", "around_one", "kept_apart"]
