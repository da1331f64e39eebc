"""What a simulation says, in plain numbers with their units in the names."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from fusemodel.simulate.window import Window


@dataclass(frozen=True)
class BufferResult:
    """A kept tile, or values passed on in registers (``level`` empty): the most it held, and the room for it."""

    group: str
    level: str
    tensor: str
    peak_bytes: float
    room_bytes: float


@dataclass(frozen=True)
class PathStep:
    """A part of the critical path: cycles that an Einsum, a transfer or a drain is on it."""

    name: str
    kind: str
    cycles: float
    share: float


@dataclass(frozen=True)
class GroupSimulation:
    """One group. ``lower_bound_cycles`` is what its units and levels are busy for at least. ``tasks`` are its firings,
    of which ``simulated`` were run one by one: the rest repeats. The critical path is that of the ``window``: so many
    ``tasks`` after the ``first`` ones, from ``begin_cycles`` to ``end_cycles``."""

    name: str
    cycles: float
    closed_form_cycles: float
    lower_bound_cycles: float
    stalls: dict[str, dict[str, float]]
    busy_cycles: dict[str, float]
    level_cycles: dict[str, float]
    tasks: int
    simulated: int
    critical_path: list[PathStep]
    in_order: bool
    window: dict[str, float]


@dataclass(frozen=True)
class EinsumSimulation:
    """One Einsum: tasks, cycles that it worked, and that its unit waited with it, by reason."""

    name: str
    unit: str
    group: str
    tasks: int
    cycles: float
    stalls: dict[str, float]


@dataclass(frozen=True)
class Simulation:
    """The tile-level simulation of a design.

    ``utilization`` is work / (cycles x size of the unit), as in the closed form; ``stalls[unit]`` has the cycles in
    which the unit did nothing, by reason, so that these and its busy cycles make ``cycles``. ``timeline[unit]`` has the
    part of the time for which the unit was busy in each interval, ``intervals`` their ends in cycles.
    """

    mapping: str
    cascade: str
    arch: str
    workload: str | None
    seq: int | None
    schedule: str
    cycles: float
    closed_form_cycles: float
    latency_s: float
    utilization: dict[str, float]
    busy: dict[str, float]
    stalls: dict[str, dict[str, float]]
    traffic_bytes: dict[str, dict[str, dict[str, float]]]
    buffers: list[BufferResult]
    einsums: list[EinsumSimulation]
    groups: list[GroupSimulation]
    intervals: list[float]
    timeline: dict[str, list[float]]
    tasks: int
    simulated: int
    extents: dict[str, int]
    instances: int = 1
    notes: list[str] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what the tasks of each group's window did is for traces and pictures."""
        return {k: v for k, v in asdict(replace(self, windows=[])).items() if k != "windows"}

    @property
    def longest_window(self) -> Window:
        """The window of the group that takes longest, of those that have one."""
        pairs = zip(self.windows, self.groups, strict=True)
        return max(pairs, key=lambda p: (p[0].tasks > 0, p[1].cycles))[0]

    def _repr_html_(self) -> str:
        from fusemodel.report.draw import simulation_html

        return simulation_html(self)

    def _repr_svg_(self) -> str:
        from fusemodel.report.draw import waterfall_svg

        return waterfall_svg(self.longest_window, title=self.mapping)
