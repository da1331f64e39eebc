"""How a kernel of ours is set up: the fastest of a few settings that the device can hold."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from fusemodel.validate.measure.kernels.launch import Unsupported

#: Tile rows, tile columns, warps, pipeline stages.
Setting = tuple[int, int, int, int]
TRIALS = 5

_chosen: dict[Hashable, Setting] = {}  # of this process: a setting is compiled and tried once, not at every shape


def describe(setting: Setting) -> str:
    rows, columns, warps, stages = setting
    return f"tile={rows}x{columns} warps={warps} stages={stages}"


def choose(name: Hashable, device: str, settings: Sequence[Setting], run: Callable[[Setting], Any]) -> Setting:
    """The fastest of ``settings`` for ``run``; one that needs more shared memory or registers than there are is passed
    over. Unsupported where none fits. On the host the first is taken."""
    if device == "cpu":
        return settings[0]
    if name not in _chosen:
        times = {s: t for s in settings if (t := _trial(run, s)) is not None}
        if not times:
            raise Unsupported(f"none of {len(settings)} settings fits the device's shared memory")
        _chosen[name] = min(times, key=lambda s: times[s])
    return _chosen[name]


def _trial(run: Callable[[Setting], Any], setting: Setting) -> float | None:
    import torch
    from triton.runtime.errors import OutOfResources

    try:
        run(setting)
    except OutOfResources:
        return None
    times = []
    for _ in range(TRIALS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run(setting)
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[TRIALS // 2]
