"""The compiled kernel, loaded from disk where it can be; and candidates divided among threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

_LEAST = 2**14  # candidates worth a thread of their own
_SHARE = 2**16  # candidates that a thread takes at a time: Ctrl-C is heard between two


@cache
def entries() -> tuple[Callable[..., None], Callable[..., None], Callable[..., int]]:
    """``prepare``, ``execute`` and ``apart`` of :mod:`fusemodel.model.compiled.kernel`, compiled."""
    from fusemodel.model.compiled import kernel

    prepare, execute, apart = (compiled(f, types) for f, types in kernel.ENTRIES.items())
    return prepare, execute, apart


def compiled(function: Callable[..., Any], types: str) -> Callable[..., Any]:
    """A compiled function, from disk if it is there. Where the cache cannot be written it is compiled for this process
    alone; files in it that cannot be read are made again."""
    from numba import njit

    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    for _ in range(2):
        try:
            return njit(types, cache=True, **options)(function)
        except OSError:
            break  # a full disk, or a directory that is not ours
        except Exception:  # whatever unpickling of a damaged file raises
            if not _discard(function):
                break
    return njit(types, **options)(function)


def _discard(function: Callable[..., Any]) -> bool:
    """Remove what is kept of a function on disk, and say whether there was anything."""
    from numba import njit

    try:
        folder = Path(njit(cache=True)(function).stats.cache_path or "")
        found = list(folder.glob(f"{Path(function.__code__.co_filename).stem}.{function.__name__}-*.nb?"))
        for path in found:
            path.unlink(missing_ok=True)
    except (OSError, RuntimeError):
        return False
    return bool(found)


def threads() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_parallel(run: Callable[[int, int], None], length: int, most: int) -> None:
    """Call ``run(start, stop)`` for every part of a range, on several threads where it is long."""
    shares = [(i, min(i + _SHARE, length)) for i in range(0, length, _SHARE)]
    if most > 1 and _LEAST * 2 <= length < _SHARE * most:
        edges = np.linspace(0, length, most + 1).astype(int).tolist()
        shares = list(pairwise(edges))
    if most <= 1 or len(shares) <= 1:
        for share in shares:
            run(*share)
        return
    with ThreadPoolExecutor(most) as pool:
        list(pool.map(lambda share: run(*share), shares))
