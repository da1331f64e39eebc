"""What a simulation says, in plain numbers with their units in the names."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


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
    """One group. ``lower_bound_cycles`` is what its units and levels are busy for at least; ``fill_cycles`` pass before
    its busiest unit starts, ``drain_cycles`` after that has finished. ``tasks`` are its firings, of which ``simulated``
    were run one by one: the rest repeats."""

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

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)
