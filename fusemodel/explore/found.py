"""What a search hands back, and how it is watched and stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from fusemodel.explore.stages import Pipeline
from fusemodel.mapping.spec import Design

#: In cycles, words moved at the outermost level, pJ, pJ x cycles, and words of the largest space taken on chip.
OBJECTIVES = ("latency", "dram", "energy", "edp", "buffer")
Score: TypeAlias = tuple[float, ...]
#: Called with (part of the search that is done, from 0 to 1; best first objective so far, None before the first
#: mapping; the bound below which no mapping goes).
Progress: TypeAlias = Callable[[float, float | None, float], None]


@dataclass(frozen=True)
class Point:
    """A mapping: its design, the fields of its file, and its values by objective (see :data:`OBJECTIVES`)."""

    design: Design
    fields: dict[str, Any]
    values: Mapping[str, float]

    def text(self, cascade: str, arch: str) -> str:
        """The mapping file, naming a cascade and an architecture."""
        head = {"name": self.design.name, "about": self.design.about, "cascade": cascade, "arch": arch}
        return yaml.safe_dump({**head, **self.fields}, sort_keys=False, width=120, default_flow_style=None)


@dataclass(frozen=True)
class Found:
    """The best mapping by ``objectives`` in order, and what is known about it.

    ``proven``: no mapping of the stated space is better. ``bound``: no mapping goes below this in the first objective.
    ``space``: mappings in the whole stated space, of which ``pruned`` were never evaluated, by reason; ``evaluated``:
    mappings or partial mappings whose costs were computed. ``front``: where several objectives were asked for
    together, the mappings that no other is as good as in all of them. ``pipelines``: for each group, when each Einsum
    works on which tile, where they run side by side. ``rounds``: the best mapping of each search, the last of them the
    one whose values fit into registers.
    """

    best: Point
    objectives: tuple[str, ...]
    score: Score
    bound: float
    proven: bool
    space: int
    evaluated: int
    pruned: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    front: tuple[Point, ...] = ()
    pipelines: tuple[Pipeline | None, ...] = ()
    rounds: tuple[Point, ...] = ()

    @property
    def design(self) -> Design:
        return self.best.design

    @property
    def fields(self) -> dict[str, Any]:
        return self.best.fields

    @property
    def gap(self) -> float:
        """How far below the best mapping the bound is, as a part of the first objective; 0 where proven."""
        return 0.0 if self.proven or not self.score[0] else max(0.0, 1 - self.bound / self.score[0])

    def text(self, cascade: str, arch: str) -> str:
        """The mapping file of the best, naming a cascade and an architecture."""
        return self.best.text(cascade, arch)

    def _repr_svg_(self) -> str:
        from fusemodel.report.draw import found_svg

        return found_svg(self)

    def _repr_html_(self) -> str:
        from fusemodel.report.draw import found_html

        return found_html(self)
