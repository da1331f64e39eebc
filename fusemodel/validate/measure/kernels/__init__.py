"""The kernels that are timed, by name. ``build`` sets one up at a case; torch and triton are imported only then."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from fusemodel.validate.measure.case import Case
from fusemodel.validate.measure.kernels.launch import TOLERANCE, Launch, Unsupported

#: Kernel: module and function that build it.
HOMES = {
    "sdpa-flash": "library.sdpa", "sdpa-cudnn": "library.sdpa", "sdpa-efficient": "library.sdpa",
    "sdpa-math": "library.sdpa", "flex": "library.flex", "bmm": "library.bmm", "softmax": "library.softmax",
    "gemm": "library.gemm", "copy": "library.copy", "launch": "library.launch", "exp2-loop": "loops.exp2_loop",
    "fma-loop": "loops.fma_loop", "triton-1pass": "passes.fused", "triton-2pass": "passes.fused",
    "triton-3pass-recompute": "passes.fused", "triton-3pass": "passes.unfused", "triton-splitkv": "decode.split_kv",
    "triton-linear-chunked": "linear.chunked", "vllm_flash_attn": "serving.paged",
    "vllm_vit_flash_attn_fa3": "serving.varlen", "torch-max": "library.read", "torch-fill": "library.fill",
    "torch-copy": "library.copy", "torch-exp2": "library.exp2",
}  # fmt: skip

#: What the name of a kernel begins with: a package that must be installed beside PyTorch and Triton.
NEEDS = {"vllm": "vllm"}


def missing() -> dict[str, str]:
    """Kernels whose package is not installed here, and why they are left out."""
    absent = {start: package for start, package in NEEDS.items() if find_spec(package) is None}
    return {k: f"{p} is not installed" for k in HOMES for start, p in absent.items() if k.startswith(start)}


def build(case: Case, device: str) -> Launch:
    """Inputs, outputs and the launching of ``case`` on ``device`` ('cuda', or 'cpu' for what runs there).

    Unsupported where this version, device or shape is not; whatever the libraries raise otherwise."""
    module, _, function = HOMES[case.kernel].partition(".")
    try:
        home = import_module(f"{__name__}.{module}")
    except ImportError as error:
        raise Unsupported(f"{error.name or 'a package'} is not installed") from error
    return getattr(home, function)(case, device)


__all__ = ["HOMES", "TOLERANCE", "Launch", "Unsupported", "build", "missing"]
