"""How the engine is compiled: cached, and without counting references, since nothing is allocated."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])

#: Modules whose code and constants are put into each other's compiled functions.
_MODULES = ("engine", "kernel", "program", "steady", "tasks")
_VERSION = sha256(b"".join(Path(__file__).with_name(f"{m}.py").read_bytes() for m in _MODULES)).hexdigest()[:12]


def entry(function: F) -> F:
    """A compiled function that allocates no arrays."""
    compiled: Any = njit(cache=True, _nrt=False, error_model="numpy")  # pyright: ignore[reportCallIssue]
    return compiled(_named(function))


def kernel(function: F) -> F:
    """A part of one, put in at each place that calls it: a table is nine arguments in a call, which took half the
    time."""
    compiled: Any = njit(cache=True, _nrt=False, error_model="numpy", forceinline=True)  # pyright: ignore[reportCallIssue]
    return compiled(_named(function))


def _named(function: F) -> F:
    """A name in the cache for each version of all modules: numba looks only at the file of the function itself."""
    function.__qualname__ = f"{function.__qualname__}_{_VERSION}"
    return function
