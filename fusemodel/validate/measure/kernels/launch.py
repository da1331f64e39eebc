"""What building a kernel gives: something to launch, and how far its output is from float64."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fusemodel.validate.measure.case import Case

#: Relative error (Frobenius norm) above which a kernel is wrong: rounding of operands and of stored scores explains
#: a few units of 2^-9 (bf16), 2^-12 (fp16) and, through matrix units of ten mantissa bits, 2^-11 (fp32).
TOLERANCE = {"bf16": 2e-2, "fp16": 4e-3, "fp32": 2e-3}
#: Heads, queries and columns of the output that are compared.
SAMPLED = 32


@dataclass(frozen=True, slots=True)
class Launch:
    """``run()`` launches the kernel once and returns its output; ``error(output)`` is the relative error of sampled
    parts of it against float64, NaN where any of it is not finite; ``config`` says how the kernel was set up."""

    run: Callable[[], Any]
    error: Callable[[Any], float]
    config: str = ""


class Unsupported(RuntimeError):
    """This kernel does not run at this shape, or on this device or version."""


def dtype_of(case: Case) -> Any:
    """The torch dtype of a case."""
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[case.dtype]


def normal(device: str, dtype: Any, *shape: int) -> Any:
    """Random inputs (zeros would run faster), the same for the same shape."""
    import torch

    generator = torch.Generator(device=device).manual_seed(sum(shape))
    return torch.randn(*shape, device=device, dtype=dtype, generator=generator)


def heads(case: Case, device: str) -> tuple[Any, Any, Any]:
    """Q [B, H, Sq, d], K and V [B, Hkv, Skv, d]; each its own numbers."""
    dtype, d = dtype_of(case), case.head_dim
    q = normal(device, dtype, case.batch, case.heads, case.seq_q, d)
    both = normal(device, dtype, 2, case.batch, case.kv_heads, case.seq_kv, d)
    return q, both[0], both[1]


def spread(extent: int, count: int = SAMPLED) -> list[int]:
    """Positions over an extent, the first and the last among them, off any regular grid of tiles."""
    if extent <= count:
        return list(range(extent))
    return sorted({0, extent - 1} | {(i * extent * 619 // (1000 * count) + i * 37) % extent for i in range(count)})


def relative_error(found: Any, expected: Any, whole: Any = None) -> float:
    """||found - expected|| / ||expected||, in float64; NaN where ``whole`` (the output it is part of) is not finite."""
    import torch

    for part in (found, whole):
        if part is not None and not bool(torch.isfinite(part).all()):
            return float("nan")
    scale = torch.linalg.vector_norm(expected.double())
    return float(torch.linalg.vector_norm(found.double() - expected.double()) / scale)
