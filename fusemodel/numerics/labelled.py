"""Arrays with named axes: what references compute with, so that no order of ranks matters to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusemodel.errors import InputError, unknown


@dataclass(frozen=True)
class Labelled:
    """An array with the rank of each axis."""

    values: NDArray[Any]
    ranks: tuple[str, ...]

    def ordered(self, ranks: Sequence[str]) -> NDArray[Any]:
        """The values with axes in another order; ranks it lacks have length 1."""
        held = [r for r in ranks if r in self.ranks]
        view = self.values.transpose([self.ranks.index(r) for r in held])
        return view[tuple(slice(None) if r in self.ranks else None for r in ranks)]

    def renamed(self, names: Mapping[str, str]) -> Labelled:
        """The same array with other names for some ranks."""
        return Labelled(self.values, tuple(names.get(r, r) for r in self.ranks))

    def matrices(self, batch: Sequence[str], rows: Sequence[str], columns: Sequence[str]) -> NDArray[Any]:
        """A stack of matrices: the batch ranks in front, then all of ``rows`` as one axis and all of ``columns``."""
        full = self.ordered([*batch, *rows, *columns])
        lead, cut = full.shape[: len(batch)], len(batch) + len(rows)
        return full.reshape(*lead, math.prod(full.shape[len(batch) : cut]), math.prod(full.shape[cut:]))


def product(a: Labelled, b: Labelled, kept: Sequence[str] = ()) -> Labelled:
    """The product of two arrays, summed over the ranks both hold but for those ``kept``."""
    shared = [r for r in a.ranks if r in b.ranks]
    batch = [r for r in shared if r in kept]
    summed = [r for r in shared if r not in kept]
    rows = [r for r in a.ranks if r not in shared]
    columns = [r for r in b.ranks if r not in shared]
    result = a.matrices(batch, rows, summed) @ b.matrices(batch, summed, columns)
    ranks = (*batch, *rows, *columns)
    sizes = dict(zip(a.ranks + b.ranks, a.values.shape + b.values.shape, strict=True))
    return Labelled(result.reshape([sizes[r] for r in ranks]), ranks)


def softmax(scores: Labelled, over: Sequence[str]) -> Labelled:
    """Exponentials that sum to 1 over some ranks, the maximum subtracted."""
    axes = tuple(i for i, r in enumerate(scores.ranks) if r in over)
    weights = np.exp(scores.values - scores.values.max(axis=axes, keepdims=True))
    return Labelled(weights / weights.sum(axis=axes, keepdims=True), scores.ranks)


@dataclass(frozen=True)
class Problem:
    """What a reference is asked: ``inputs``, the ranks of each output, and the extents."""

    inputs: Mapping[str, Labelled]
    outputs: Mapping[str, tuple[str, ...]]
    extents: Mapping[str, int]

    def input(self, name: str) -> Labelled:
        """An input by name."""
        if name not in self.inputs:
            raise unknown("input of the reference", name, self.inputs)
        return self.inputs[name]

    def only_output(self) -> tuple[str, tuple[str, ...]]:
        """The name and ranks of the one output."""
        if len(self.outputs) != 1:
            raise InputError(f"the reference makes one tensor, the cascade has {len(self.outputs)} outputs")
        return next(iter(self.outputs.items()))
