"""The kernels that are timed, by name. ``build`` sets one up at a case; torch and triton are imported only then."""

from __future__ import annotations

from importlib import import_module

from fusemodel.validate.measure.case import Case
from fusemodel.validate.measure.kernels.launch import TOLERANCE, Launch, Unsupported

#: Kernel: module and function that build it.
HOMES = {
    "sdpa-flash": "library.sdpa", "sdpa-cudnn": "library.sdpa", "sdpa-efficient": "library.sdpa",
    "sdpa-math": "library.sdpa", "flex": "library.flex", "bmm": "library.bmm", "softmax": "library.softmax",
    "gemm": "library.gemm", "copy": "library.copy", "launch": "library.launch", "exp2-loop": "loops.exp2_loop",
    "fma-loop": "loops.fma_loop", "triton-1pass": "passes.fused", "triton-2pass": "passes.fused",
    "triton-3pass-recompute": "passes.fused", "triton-3pass": "passes.unfused", "triton-splitkv": "decode.split_kv",
    "triton-linear-chunked": "linear.chunked",
}  # fmt: skip


def build(case: Case, device: str) -> Launch:
    """Inputs, outputs and the launching of ``case`` on ``device`` ('cuda', or 'cpu' for what runs there).

    Unsupported where this version, device or shape is not; whatever the libraries raise otherwise."""
    module, _, function = HOMES[case.kernel].partition(".")
    try:
        home = import_module(f"{__name__}.{module}")
    except ImportError as error:
        raise Unsupported(f"{error.name or 'a package'} is not installed") from error
    return getattr(home, function)(case, device)


__all__ = ["HOMES", "TOLERANCE", "Launch", "Unsupported", "build"]
