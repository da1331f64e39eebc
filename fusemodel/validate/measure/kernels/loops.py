"""Loops that keep one kind of unit busy: exponentials on the special-function units, multiply-adds on the lanes."""

# pyright: reportMissingImports=false, reportOptionalMemberAccess=false, reportInvalidTypeForm=false
# pyright: reportArgumentType=false, reportIndexIssue=false, reportGeneralTypeIssues=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportReturnType=false
from __future__ import annotations

import math
from typing import Any

import triton
import triton.language as tl

from fusemodel.validate.measure.case import Case
from fusemodel.validate.measure.kernels.launch import Launch, dtype_of, normal, relative_error

BLOCK = 1024
#: x <- x/2 + 1/4, which settles at 1/2.
SLOPE, SHIFT = 0.5, 0.25


@triton.jit
def _exp2_loop(X, Y, n, steps, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(X + at, mask=at < n, other=0.0)
    for _ in range(steps):
        x = tl.exp2(-x)
    tl.store(Y + at, x, mask=at < n)


@triton.jit
def _fma_loop(X, Y, n, steps, slope, shift, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(X + at, mask=at < n, other=0.0)
    for _ in range(steps):
        x = x * slope + shift
    tl.store(Y + at, x, mask=at < n)


def exp2_loop(case: Case, device: str) -> Launch:
    """``case.k`` times x <- 2^-x for each of ``case.m`` numbers, which settles at one (so that errors do not grow)."""

    def reference(x: Any) -> Any:
        for _ in range(case.k):
            x = (-x).exp2()
        return x

    return _loop(case, device, _exp2_loop, (), reference)


def fma_loop(case: Case, device: str) -> Launch:
    """``case.k`` times x <- a x + b for each of ``case.m`` numbers."""

    def reference(x: Any) -> Any:
        for _ in range(case.k):
            x = x * SLOPE + SHIFT
        return x

    return _loop(case, device, _fma_loop, (SLOPE, SHIFT), reference)


def _loop(case: Case, device: str, kernel: Any, constants: tuple[float, ...], reference: Any) -> Launch:
    import torch

    x = normal(device, dtype_of(case), case.m)
    out = torch.full_like(x, math.nan)

    def run() -> Any:
        kernel[(triton.cdiv(case.m, BLOCK),)](x, out, case.m, case.k, *constants, BLOCK, num_warps=4)
        return out

    return Launch(run, lambda found: relative_error(found[-1024:], reference(x[-1024:].double()), found))
