"""Partial mixes: what was decided so far, and what of it still matters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusemodel.explore.columns import Place
from fusemodel.explore.front import Floats


@dataclass(frozen=True)
class Spill:
    """A tensor whose tile at a place may live one level further out in part."""

    tensor: str
    place: Place


@dataclass(frozen=True)
class Mixed:
    """A choice for everything: options by nest, places by tensor, the combination of sizes, what spills."""

    options: tuple[int, ...]
    places: dict[str, int]
    at: int
    spill: Spill | None
    piped: bool


@dataclass(frozen=True)
class Label:
    """What matters of a tensor's place while Einsums that use it are still to come: the levels that serve the Einsum
    that makes it and those that read it, its tile in a nest, whether it spills, and the place while another tensor may
    take it."""

    writer: str | None
    reader: str | None
    own: tuple[str, str, int] | None
    spilt: bool
    place: Place | None


@dataclass
class States:
    """Partial choices: the combination of sizes that each is of, columns, picks so far, and for every tensor that is
    still to be used the number of its label."""

    at: np.ndarray
    rows: Floats
    picks: np.ndarray
    labels: dict[str, np.ndarray]

    def taken(self, index: np.ndarray) -> States:
        labels = {t: x[index] for t, x in self.labels.items()}
        return States(self.at[index], self.rows[index], self.picks[index], labels)

    def keys(self) -> np.ndarray:
        """One number for each combination of labels."""
        total = np.zeros(len(self.rows), dtype=np.int64)
        for x in self.labels.values():
            total = total * (int(x.max(initial=0)) + 1) + x
        return total


__all__ = ["Label", "Mixed", "Spill", "States"]
