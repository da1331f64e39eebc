"""Measurements of kernels, and what the models say of them.

:func:`validate` is imported when first used: ``fusemodel.validate.measure`` must run where only NumPy and PyTorch are
installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusemodel.validate.run import validate

__all__ = ["validate"]


def __getattr__(name: str) -> Any:
    if name == "validate":
        from fusemodel.validate.run import validate

        return validate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
