"""How the engine is compiled: cached, and without counting references, since nothing is allocated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def entry(function: F) -> F:
    """A compiled function that allocates no arrays."""
    compiled: Any = njit(cache=True, _nrt=False, error_model="numpy")  # pyright: ignore[reportCallIssue]
    return compiled(function)


def kernel(function: F) -> F:
    """A part of one, put in at each place that calls it: a table is nine arguments in a call, which took half the
    time."""
    compiled: Any = njit(cache=True, _nrt=False, error_model="numpy", forceinline=True)  # pyright: ignore[reportCallIssue]
    return compiled(function)
