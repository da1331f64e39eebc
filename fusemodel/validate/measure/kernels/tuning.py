"""How a kernel of ours is set up: the faster of a few settings that the device can hold."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fusemodel.validate.measure.kernels.launch import Unsupported

#: Tile rows, tile columns, warps, pipeline stages.
Setting = tuple[int, int, int, int]
#: Settings that are compared (compiling one takes a second or so), and runs of each.
COMPARED, TRIALS = 2, 5


def describe(setting: Setting) -> str:
    rows, columns, warps, stages = setting
    return f"tile={rows}x{columns} warps={warps} stages={stages}"


def choose(device: str, settings: Sequence[Setting], run: Callable[[Setting], Any]) -> Setting:
    """The faster for ``run`` of the first settings that fit; one that needs more shared memory or registers than there
    are is passed over. Unsupported where none fits. On the host the first is taken."""
    if device == "cpu":
        return settings[0]
    times: dict[Setting, float] = {}
    for setting in settings:
        if len(times) < COMPARED and (time := _trial(run, setting)) is not None:
            times[setting] = time
    if not times:
        raise Unsupported(f"none of {len(settings)} settings fits the device's shared memory")
    return min(times, key=lambda s: times[s])


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
