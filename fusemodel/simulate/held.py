"""What is in a kept tile (or in registers) while tasks move real numbers: which elements, in which of its places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusemodel.errors import InputError
from fusemodel.simulate.tasks import Buffer

Array = NDArray[Any]
Where = tuple[Array, ...]


@dataclass
class _Place:
    """Elements by the version that they are of, the oldest first."""

    versions: dict[tuple[int, ...], list[Where]] = field(default_factory=dict)


@dataclass
class Held:
    """The elements of a tensor in one buffer. A place has those of one tile at a time; of a state (``stepped``: loops
    of the writer that step it), of the last steps, as many as there are versions.

    ``words`` is room for so many elements (None: spilled, so what does not fit is further out)."""

    buffer: Buffer
    sizes: Mapping[str, int]
    stepped: tuple[str, ...]
    words: float | None
    count: NDArray[np.int64]
    lost: NDArray[np.bool_]
    places: dict[tuple[int, ...], _Place] = field(default_factory=dict)

    @property
    def there(self) -> Array:
        return (self.count > 0) & ~self.lost

    def _at(self, steps: Mapping[str, int]) -> tuple[_Place, tuple[int, ...]]:
        number = 0
        for x in self.buffer.generation:
            number = number * self.sizes[x] + steps[x]
        turn = 0 if self.stepped else number % self.buffer.copies
        place = turn, *(steps[x] for x in self.buffer.own)
        return self.places.setdefault(place, _Place()), (number, *(steps[x] for x in self.stepped))

    def start(self, steps: Mapping[str, int]) -> None:
        """The writer begins: what it writes over is gone."""
        place, version = self._at(steps)
        if not self.stepped and version not in place.versions:
            self._drop(place, 0)

    def put(self, steps: Mapping[str, int], where: Where) -> None:
        """The writer is done. InputError if there is no room."""
        place, version = self._at(steps)
        if version not in place.versions:
            self._drop(place, self.buffer.versions - 1 if self.stepped else 0)
        place.versions.setdefault(version, []).append(where)
        np.add.at(self.count, where, 1)
        self.lost[where] = False
        held = int((self.count > 0).sum())
        if self.words is not None and held > self.words * (1 + 1e-9) + 1e-9:
            raise InputError(f"{self.buffer.tile} holds {held} words in room for {self.words:.0f}")

    def replaced(self, where: Where) -> None:
        """Another tensor took the place of some elements."""
        self.lost[where] = True

    def _drop(self, place: _Place, kept: int) -> None:
        while len(place.versions) > kept:
            for where in place.versions.pop(next(iter(place.versions))):
                np.subtract.at(self.count, where, 1)


__all__ = ["Held"]
