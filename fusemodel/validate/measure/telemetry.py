"""Clocks, power, temperature and energy of the device, read by a thread while kernels run.

Only reading: clocks and power limits are never set."""

# pyright: reportMissingImports=false
from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fusemodel.validate.measure.stats import quantile

PERIOD_S = 0.025
#: Readings that are kept: a few minutes of them, longer than any one point takes.
KEPT = 20_000
#: Readings of power that make a mean.
MIN_POWER_READINGS = 10
#: Why the clocks were held down, bit by bit (nvmlClocksThrottleReasons). Bit 0, that the device was idle, is no reason.
THROTTLE = {
    0x2: "applications_clocks", 0x4: "power_cap", 0x8: "hw_slowdown", 0x10: "sync_boost", 0x20: "sw_thermal",
    0x40: "hw_thermal", 0x80: "power_brake", 0x100: "display_clocks",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reading:
    """At a moment of the monotonic clock; None where the device does not tell."""

    at_s: float
    sm_mhz: float | None = None
    mem_mhz: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    throttle: int | None = None
    energy_j: float | None = None


def condition(readings: Sequence[Reading], begin_s: float, end_s: float) -> dict[str, Any]:
    """The columns that say in what state the device was between two moments: from the readings between them, or from
    the nearest one where there was none."""
    if not readings:
        return {}
    inside = [r for r in readings if begin_s <= r.at_s <= end_s]
    inside = inside or [min(readings, key=lambda r: abs(r.at_s - (begin_s + end_s) / 2))]
    found: dict[str, Any] = {}
    for column, field in (("sm_clock_mhz", "sm_mhz"), ("mem_clock_mhz", "mem_mhz"), ("power_w", "power_w"),
                          ("temperature_c", "temperature_c")):  # fmt: skip
        values = [v for r in inside if (v := getattr(r, field)) is not None]
        found[column] = quantile(values, 0.5) if values else None
    clocks = [r.sm_mhz for r in inside if r.sm_mhz is not None]
    found["sm_clock_min_mhz"] = min(clocks) if clocks else None
    bits = [r.throttle for r in inside if r.throttle is not None]
    reasons = [name for bit, name in THROTTLE.items() if any(b & bit for b in bits)]
    found["throttle"] = ("+".join(reasons) or "none") if bits else None
    return found


def energy_between_j(readings: Sequence[Reading], begin_s: float, end_s: float) -> tuple[float, str] | None:
    """Joules between two moments and how they were found: from the device's ``energy-counter``, interpolated, or, where
    it has none, from the mean of ``power-readings``. None where there are too few of either."""
    steps = _steps(readings)
    if len(steps) >= 2 and steps[0][0] <= begin_s < end_s <= steps[-1][0]:
        return _at(steps, end_s) - _at(steps, begin_s), "energy-counter"
    if len(steps) >= 2:
        return None
    power = [r.power_w for r in readings if r.power_w is not None and begin_s <= r.at_s <= end_s]
    if len(power) < MIN_POWER_READINGS:
        return None
    return sum(power) / len(power) * (end_s - begin_s), "power-readings"


def _steps(readings: Sequence[Reading]) -> list[tuple[float, float]]:
    """When the counter was first seen at each of its values: it moves in steps longer than the period of reading."""
    steps: list[tuple[float, float]] = []
    for r in readings:
        if r.energy_j is not None and (not steps or r.energy_j > steps[-1][1]):
            steps.append((r.at_s, r.energy_j))
    return steps


def _at(steps: Sequence[tuple[float, float]], at_s: float) -> float:
    i = min(max(bisect_left(steps, (at_s,)), 1), len(steps) - 1)
    (t0, e0), (t1, e1) = steps[i - 1], steps[i]
    return e0 + (e1 - e0) * (at_s - t0) / (t1 - t0)


class Telemetry:
    """Reads a device every ``PERIOD_S`` from a thread until closed. ``read`` gives one reading."""

    def __init__(self, read: Callable[[], Reading], period_s: float = PERIOD_S) -> None:
        self._read, self._period_s = read, period_s
        self._readings: deque[Reading] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="telemetry", daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        while not self._stop.wait(self._period_s):
            reading = self._read()
            with self._lock:
                self._readings.append(reading)

    def since(self, begin_s: float) -> list[Reading]:
        """The readings from about ``begin_s`` on."""
        with self._lock:
            known = list(self._readings)
        first = bisect_left(known, begin_s - 2.0, key=lambda r: r.at_s)
        return known[first:]

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=2.0)


@dataclass(frozen=True, slots=True)
class Watch:
    """A running telemetry, and what the driver's library says of the device and itself."""

    telemetry: Telemetry
    facts: dict[str, Any]


def watch(uuid: str = "") -> Watch | None:
    """Telemetry of the device with this UUID (the first device where it is not found); None without the library."""
    try:
        import pynvml as nvml

        nvml.nvmlInit()
        handle = _handle(nvml, uuid)
    except Exception:  # the library raises errors of its own, and may itself be missing
        return None

    def ask(name: str, *arguments: Any) -> Any:
        try:
            return getattr(nvml, name)(handle, *arguments)
        except Exception:  # not every device answers everything
            return None

    def scaled(value: Any, factor: float = 1.0) -> float | None:
        return None if value is None else factor * value

    def read() -> Reading:
        return Reading(
            time.monotonic(),
            scaled(ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM)),
            scaled(ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM)),
            scaled(ask("nvmlDeviceGetPowerUsage"), 1e-3),
            scaled(ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU)),
            ask("nvmlDeviceGetCurrentClocksThrottleReasons"),
            scaled(ask("nvmlDeviceGetTotalEnergyConsumption"), 1e-3),
        )

    def system(name: str) -> Any:
        try:
            value = getattr(nvml, name)()
        except Exception:
            return None
        return value.decode() if isinstance(value, bytes) else value

    runtime = system("nvmlSystemGetCudaDriverVersion")
    facts = {
        "driver": system("nvmlSystemGetDriverVersion"),
        "cuda_driver": None if runtime is None else f"{runtime // 1000}.{runtime % 1000 // 10}",
        "power_limit_w": scaled(ask("nvmlDeviceGetEnforcedPowerLimit"), 1e-3),
        "max_sm_clock_mhz": ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM),
    }
    return Watch(Telemetry(read), facts)


def _handle(nvml: Any, uuid: str) -> Any:
    for name in (uuid, f"GPU-{uuid}"):
        try:
            return nvml.nvmlDeviceGetHandleByUUID(name)
        except Exception:  # another spelling, or a device that is hidden
            continue
    return nvml.nvmlDeviceGetHandleByIndex(0)
