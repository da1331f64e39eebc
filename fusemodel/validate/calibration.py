"""Fitted efficiencies: a library file that a command writes, and what it does to an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field

from fusemodel.arch import Architecture
from fusemodel.arch.spec import Cycles, Fraction, Time
from fusemodel.library import gpu_dir
from fusemodel.specfile import Spec, document_place, validate
from fusemodel.yamlfile import read_yaml


class SlowSpec(Spec):
    """A campaign of measurements during which clocks fell: kernels longer than ``after`` ran the rest at ``rate``."""

    rule: str
    after: Time
    rate: float = Field(gt=0, le=1)


class CalibrationSpec(Spec):
    """Efficiencies by the names that architecture files have them under; ``overlap`` is of what the machine itself does
    not overlap. ``copies``: what copies reached of a memory on the machine that was fitted on; another machine's
    copies stand in their place, so that what is carried is the part of them that kernels reach."""

    name: str = ""
    about: str = ""
    fitted: dict[str, Any] = Field({})
    achieved: dict[str, Fraction]
    copies: dict[str, Fraction] = Field({})
    overheads: dict[str, Time] = Field({})
    overhead_cycles: dict[str, Cycles] = Field({})
    overlap: float = Field(ge=0, le=1)
    tail: float = Field(ge=0, le=1)
    campaigns: list[SlowSpec] = Field([])


@dataclass(frozen=True)
class Calibration:
    """Fitted efficiencies, carried to any machine that has the same names."""

    achieved: Mapping[str, float]
    overheads_s: Mapping[str, float]
    overlap: float
    tail: float
    cycles_of: Mapping[str, float] = field(default_factory=dict)
    slow: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    fitted: Mapping[str, Any] = field(default_factory=dict)
    copies: Mapping[str, float] = field(default_factory=dict)

    def tuned(self, arch: Architecture) -> Architecture:
        """A machine with these efficiencies; everything else is its data sheet's."""
        overlap = arch.overlap + (1 - arch.overlap) * self.overlap
        times = {**self.overheads_s, **{n: c / arch.clock_hz for n, c in self.cycles_of.items()}}
        own = {n: v * arch.achieved.get(n, c) / c for n, c in self.copies.items() if (v := self.achieved.get(n))}
        return arch.tuned({**self.achieved, **own}, times, overlap, self.tail)

    def slowed(self, seconds: Any, rule: str) -> Any:
        """Times in a campaign whose clocks fell."""
        if rule not in self.slow:
            return seconds
        after, rate = self.slow[rule]
        return np.minimum(seconds, after) + np.maximum(seconds - after, 0) / rate


def load_calibration(path: str | None = None) -> Calibration:
    """The calibration of a file, or of the library."""
    doc = read_yaml(path or str(gpu_dir() / "calibrated.yaml"))
    spec = validate(CalibrationSpec, doc.data, document_place(doc))
    slow = {s.rule: (s.after, s.rate) for s in spec.campaigns}
    return Calibration(spec.achieved, spec.overheads, spec.overlap, spec.tail, spec.overhead_cycles, slow, spec.fitted,
                       spec.copies)  # fmt: skip


__all__ = ["Calibration", "load_calibration"]
