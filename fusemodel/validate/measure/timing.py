"""Timing of one kernel: events around replays of a captured graph, with a warm or a cold L2 cache."""

# pyright: reportMissingImports=false
from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

WARMUP_MS = 25.0
TIMED_MS = 100.0
MIN_SAMPLES, MAX_SAMPLES = 9, 1000
#: A replay of warm launches holds as many as take this long, so that the gap between replays is spread over them.
REPLAY_US, MAX_LAUNCHES = 250.0, 64
#: A brief timing, about as collectors of serving kernels do it: rest before, replays to warm up, replays in a row
#: between two events, and as many rows as take so long, at most.
PAUSE_S, BRIEF_WARMUPS, BRIEF_REPLAYS, BRIEF_ROWS, BRIEF_MS = 0.1, 3, 6, 9, 20.0
#: Bytes overwritten before each launch that must find a cold cache; twice the cache where that is more.
FLUSH_BYTES = 256 * 10**6
#: About how long that takes, to foretell how many samples fit.
FLUSH_MS = 0.1


@dataclass(frozen=True, slots=True)
class Samples:
    """Times of one launch in microseconds, each over ``launches`` of them; how they were launched; and the first and
    last moment of the timed part, on the monotonic clock."""

    us: tuple[float, ...]
    launches: int
    how: str
    begin_s: float
    end_s: float


class Timer(Protocol):
    """What timing needs of a device."""

    def capture(self, run: Callable[[], Any], launches: int) -> tuple[Callable[[], Any], str]:
        """Something that launches ``run`` so often when called, and how: as a ``graph`` or on the ``stream``."""
        ...

    def time_us(self, replay: Callable[[], Any], count: int, flush: bool) -> list[float]:
        """Durations of ``count`` replays, each after the cache was overwritten if ``flush``."""
        ...


@dataclass(frozen=True, slots=True)
class GraphTimer:
    """Events of a device (``torch.cuda``, say) around graph replays; ``scratch`` is what is overwritten to empty the
    cache. What cannot be captured is launched on the stream instead."""

    device: Any
    scratch: Any

    def capture(self, run: Callable[[], Any], launches: int) -> tuple[Callable[[], Any], str]:
        device = self.device

        def several() -> None:
            for _ in range(launches):
                run()

        side = device.Stream()
        side.wait_stream(device.current_stream())
        with device.stream(side):
            for _ in range(2):
                run()
        device.current_stream().wait_stream(side)
        device.synchronize()
        graph = device.CUDAGraph()
        try:
            with device.graph(graph):
                several()
        except RuntimeError as error:
            if "out of memory" in str(error):
                raise
            device.synchronize()
            return several, "stream"
        return graph.replay, "graph"

    def time_us(self, replay: Callable[[], Any], count: int, flush: bool) -> list[float]:
        """Times from event to event. The host enqueues ahead while the device overwrites or runs, so that its own time
        does not show."""
        device = self.device
        events = [(device.Event(enable_timing=True), device.Event(enable_timing=True)) for _ in range(count)]
        for i, (start, end) in enumerate(events):
            if flush:
                self.scratch.fill_(i % 127 + 1)
            start.record()
            replay()
            end.record()
        device.synchronize()
        return [1e3 * start.elapsed_time(end) for start, end in events]


def graph_timer(l2_bytes: int) -> GraphTimer:
    """The timer of the first GPU, with a level-2 cache of so many bytes."""
    import torch

    scratch = torch.empty(max(FLUSH_BYTES, 2 * l2_bytes), dtype=torch.int8, device="cuda")
    return GraphTimer(torch.cuda, scratch)


class HostTimer:
    """The clock of the host, for kernels that run on it: the rest of the program is tested with it."""

    def capture(self, run: Callable[[], Any], launches: int) -> tuple[Callable[[], Any], str]:
        def several() -> None:
            for _ in range(launches):
                run()

        return several, "stream"

    def time_us(self, replay: Callable[[], Any], count: int, flush: bool) -> list[float]:
        del flush
        result = []
        for _ in range(count):
            start = time.perf_counter_ns()
            replay()
            result.append((time.perf_counter_ns() - start) / 1e3)
        return result


def sample(
    run: Callable[[], Any], timer: Timer, *, cold: bool, timed_ms: float = TIMED_MS, brief: bool = False
) -> Samples:
    """Time a kernel. Replays go on for ``timed_ms`` (a cold one counts with the overwriting before it, which is outside
    what is timed), within the limits on the number of samples. ``brief``: a warm kernel is timed after a pause, by so
    few replays of one launch that the power limit does not hold the clocks down."""
    single, how = timer.capture(run, 1)
    if brief and not cold:
        return _brief(single, how, timer)
    estimate = max(sorted(timer.time_us(single, 3, flush=False))[1], 1e-3)
    launches = 1 if cold else max(1, min(MAX_LAUNCHES, math.ceil(REPLAY_US / estimate)))
    replay = single
    if launches > 1:
        replay, how = timer.capture(run, launches)
    flush_ms = FLUSH_MS if cold else 0.0
    warmups = max(3, min(MAX_SAMPLES, math.ceil(WARMUP_MS / (launches * estimate / 1e3 + flush_ms))))
    warm = timer.time_us(replay, warmups, cold)
    settled_ms = max(sorted(warm[-5:])[len(warm[-5:]) // 2], 1e-3) / 1e3  # clocks were lower at the first estimate
    count = max(MIN_SAMPLES, min(MAX_SAMPLES, math.ceil(timed_ms / (settled_ms + flush_ms))))
    begin = time.monotonic()
    us = timer.time_us(replay, count, cold)
    return Samples(tuple(t / launches for t in us), launches, how, begin, time.monotonic())


def _brief(single: Callable[[], Any], how: str, timer: Timer) -> Samples:
    """Rows of replays, one after the other between two events, and so without what events take between them."""

    def row() -> None:
        for _ in range(BRIEF_REPLAYS):
            single()

    time.sleep(PAUSE_S)
    estimate_us = max(timer.time_us(single, BRIEF_WARMUPS, flush=False)[-1], 1e-3)
    rows = max(1, min(BRIEF_ROWS, int(BRIEF_MS * 1e3 / (BRIEF_REPLAYS * estimate_us))))
    begin = time.monotonic()
    us = timer.time_us(row, rows, flush=False)
    return Samples(tuple(t / BRIEF_REPLAYS for t in us), 1, f"{BRIEF_REPLAYS} {how}s", begin, time.monotonic())


@dataclass(frozen=True, slots=True)
class Load:
    """Launches under steady load, between two moments on the monotonic clock."""

    calls: int
    begin_s: float
    end_s: float


def load(run: Callable[[], Any], timer: Timer, *, settle_s: float, seconds: float) -> Load:
    """Launch a kernel again and again, with hardly a gap, for ``seconds`` after ``settle_s``."""
    estimate = max(sorted(timer.time_us(timer.capture(run, 1)[0], 3, flush=False))[1], 1e-3)
    launches = max(1, min(MAX_LAUNCHES, math.ceil(5e3 / estimate)))
    replay, _ = timer.capture(run, launches)
    batch = max(1, min(MAX_SAMPLES, math.ceil(50e3 / (launches * estimate))))
    start = time.monotonic()
    while time.monotonic() - start < settle_s:
        timer.time_us(replay, batch, flush=False)
    begin, calls = time.monotonic(), 0
    while time.monotonic() - begin < seconds:
        timer.time_us(replay, batch, flush=False)
        calls += launches * batch
    return Load(calls, begin, time.monotonic())
