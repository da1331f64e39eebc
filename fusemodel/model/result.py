"""What an evaluation says, in plain numbers with their units in the names."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class EinsumResult:
    """One Einsum. ``share`` is its part of its unit's busy time, ``utilization`` the part of the unit it fills while it
    runs."""

    name: str
    unit: str
    group: str
    points: int
    cycles: float
    latency_s: float
    share: float
    utilization: float
    energy_j: float
    traffic_bytes: dict[str, float]
    operations: list[str]


@dataclass(frozen=True)
class GroupResult:
    """One group: what it waits for (``bound``), its parts of time, the tiles and variant taken. Where it runs as blocks
    on several instances, ``parts_s`` has the time of each part (they overlap) and ``waves`` the blocks an instance."""

    name: str
    latency_s: float
    cycles: float
    bound: str
    schedule_cycles: float
    drain_cycles: float
    memory_cycles: dict[str, float]
    tiles: dict[str, int]
    variant: str
    candidates: int
    footprint_bytes: dict[str, dict[str, float]]
    spilled: dict[str, float]
    dram_bytes: float
    parts_s: dict[str, float] = field(default_factory=dict)
    waves: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """The closed-form evaluation of a design.

    ``utilization`` is work / (latency x size of the unit): busy time over latency where a unit is filled. ``energy_j``
    counts operations, accesses of every level, and register files unless the architecture leaves them out
    (``counted: false``); ``register_energy_j`` has all of them.
    """

    mapping: str
    cascade: str
    arch: str
    workload: str | None
    seq: int | None
    latency_s: float
    cycles: float
    energy_j: float
    dram_bytes: float
    utilization: dict[str, float]
    busy: dict[str, float]
    energy_breakdown_j: dict[str, float]
    register_energy_j: dict[str, float]
    energy_with_registers_j: float
    traffic_bytes: dict[str, dict[str, dict[str, float]]]
    bound: str
    area_mm2: float
    extents: dict[str, int]
    einsums: list[EinsumResult]
    groups: list[GroupResult]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def active(self, unit: str) -> dict[str, float]:
        """The part of the latency in which a unit works on each Einsum; of several instances, their mean."""
        result: dict[str, float] = {}
        for e in self.einsums:
            if e.unit == unit:
                result[e.name] = result.get(e.name, 0.0) + e.share * self.busy[unit]
        return result

    def _repr_html_(self) -> str:
        from fusemodel.report.draw import evaluation_html

        return evaluation_html(self)
