"""fusemodel: attention algorithms as cascades of Einsums, mapped onto accelerators and evaluated in closed form.

The names below are imported when first used, so that ``import fusemodel`` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fusemodel.api import evaluate, evaluate_batch
    from fusemodel.arch import load_architecture, parse_architecture
    from fusemodel.cascade import load_cascade, parse_cascade
    from fusemodel.errors import InputError
    from fusemodel.mapping import load_design, parse_design
    from fusemodel.numerics import run
    from fusemodel.report import compare

_HOMES = {
    "InputError": "fusemodel.errors",
    "compare": "fusemodel.report",
    "evaluate": "fusemodel.api",
    "evaluate_batch": "fusemodel.api",
    "load_architecture": "fusemodel.arch",
    "load_cascade": "fusemodel.cascade",
    "load_design": "fusemodel.mapping",
    "parse_architecture": "fusemodel.arch",
    "parse_cascade": "fusemodel.cascade",
    "parse_design": "fusemodel.mapping",
    "run": "fusemodel.numerics",
}

__all__ = [
    "InputError",
    "compare",
    "evaluate",
    "evaluate_batch",
    "load_architecture",
    "load_cascade",
    "load_design",
    "parse_architecture",
    "parse_cascade",
    "parse_design",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fusemodel' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
