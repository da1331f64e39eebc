"""PyTorch's kernels: attention back-ends, compiled masks, and the parts of attention one by one."""

# pyright: reportMissingImports=false
from __future__ import annotations

import math
import warnings
from typing import Any

from fusemodel.validate.measure.case import Case
from fusemodel.validate.measure.kernels.launch import (
    Launch,
    Unsupported,
    dtype_of,
    heads,
    normal,
    relative_error,
    spread,
)
from fusemodel.validate.measure.kernels.reference import attention_error


def sdpa(case: Case, device: str) -> Launch:
    """``scaled_dot_product_attention`` held to one back-end, the one in the kernel's name."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    name = case.kernel.partition("-")[2]
    backends = {
        "flash": "FLASH_ATTENTION",
        "cudnn": "CUDNN_ATTENTION",
        "efficient": "EFFICIENT_ATTENTION",
        "math": "MATH",
    }
    backend = getattr(SDPBackend, backends[name], None)
    if backend is None:
        raise Unsupported(f"this PyTorch has no back-end {backends[name]}")
    q, k, v = heads(case, device)
    options: dict[str, Any] = {"is_causal": bool(case.causal)}
    if case.heads != case.kv_heads:
        options["enable_gqa"] = True
    if case.window:
        raise Unsupported("windows")

    def run() -> Any:
        with sdpa_kernel(backend):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)

    with warnings.catch_warnings(record=True) as reasons:
        warnings.simplefilter("always")
        try:
            run()
        except RuntimeError as error:
            if not any(said in str(error) for said in ("No available kernel", "No viable backend")):
                raise
            said = " ".join(dict.fromkeys(str(w.message).partition(" (Triggered")[0] for w in reasons))
            raise Unsupported(said or str(error)) from error
    return Launch(run, lambda out: attention_error(case, q, k, v, out))


def flex(case: Case, device: str) -> Launch:
    """``flex_attention`` compiled for one mask and one shape (not compiled on the host)."""
    import torch
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    q, k, v = heads(case, device)
    window = case.window or case.seq_kv

    def visible(b: Any, h: Any, i: Any, j: Any) -> Any:
        del b, h
        return (i >= j) & (i - j < window)

    mask = None
    if case.causal:
        mask = create_block_mask(visible, None, None, case.seq_q, case.seq_kv, device=device)
    kernel: Any = flex_attention
    if device != "cpu":
        torch._dynamo.reset()  # a limit on recompilations of one function would silently fall back to eager
        kernel = torch.compile(flex_attention, dynamic=False)
    grouped = {"enable_gqa": True} if case.heads != case.kv_heads else {}

    def run() -> Any:
        return kernel(q, k, v, block_mask=mask, **grouped)

    return Launch(run, lambda out: attention_error(case, q, k, v, out))


def bmm(case: Case, device: str) -> Launch:
    """One of attention's two batched products, all heads at once: Q K^T, or weights times V."""
    import torch

    dtype, d, many = dtype_of(case), case.head_dim, case.batch * case.heads
    if case.op == "bmm_qk":
        a, b = normal(device, dtype, many, case.seq_q, d), normal(device, dtype, many, case.seq_kv, d).transpose(1, 2)
    else:
        a, b = normal(device, dtype, many, case.seq_q, case.seq_kv), normal(device, dtype, many, case.seq_kv, d)
    out = torch.full((many, case.seq_q, b.shape[2]), math.nan, device=device, dtype=dtype)
    rows = torch.tensor(spread(case.seq_q), device=device)

    def error(found: Any) -> float:
        last = many - 1
        parts = [(found[i, rows], a[i, rows].double() @ b[i].double()) for i in dict.fromkeys((0, last // 2, last))]
        return relative_error(torch.stack([f for f, _ in parts]), torch.stack([e for _, e in parts]), found)

    return Launch(lambda: torch.bmm(a, b, out=out), error)


def softmax(case: Case, device: str) -> Launch:
    """Softmax over the rows of all heads' scores."""
    import torch

    scores = normal(device, dtype_of(case), case.batch * case.heads, case.seq_q, case.seq_kv)
    rows = torch.tensor(spread(case.seq_q), device=device)

    def error(found: Any) -> float:
        return relative_error(found[-1, rows], torch.softmax(scores[-1, rows].double(), -1), found)

    return Launch(lambda: torch.softmax(scores, -1), error)


def gemm(case: Case, device: str) -> Launch:
    """X [M, K] times W^T, W [N, K], as a linear layer does."""
    import torch

    dtype = dtype_of(case)
    x, w = normal(device, dtype, case.m, case.k), normal(device, dtype, case.n, case.k)
    out = torch.full((case.m, case.n), math.nan, device=device, dtype=dtype)
    rows, columns = (torch.tensor(spread(n), device=device) for n in (case.m, case.n))

    def error(found: Any) -> float:
        return relative_error(found[rows][:, columns], x[rows].double() @ w[columns].double().T, found)

    return Launch(lambda: torch.mm(x, w.T, out=out), error)


def copy(case: Case, device: str) -> Launch:
    """A copy within the device's memory."""
    import torch

    source = normal(device, dtype_of(case), case.m)
    out = torch.full_like(source, math.nan)
    return Launch(lambda: out.copy_(source), lambda found: relative_error(found[: 2**20], source[: 2**20], found))


def launch(case: Case, device: str) -> Launch:
    """The smallest kernel: one addition."""
    import torch

    x = normal(device, dtype_of(case), 1)
    out = torch.full_like(x, math.nan)
    return Launch(lambda: torch.add(x, 1, out=out), lambda found: relative_error(found, x.double() + 1, found))


def read(case: Case, device: str) -> Launch:
    """The largest of many numbers: everything is read, next to nothing written."""
    import torch

    source = normal(device, dtype_of(case), case.m)
    source[case.m // 3] = 1000.0  # larger than any other

    def error(found: Any) -> float:
        return relative_error(found, torch.tensor(1000.0, device=device))

    return Launch(lambda: torch.amax(source, 0), error)


def fill(case: Case, device: str) -> Launch:
    """One number written everywhere."""
    import torch

    out = torch.full((case.m,), math.nan, device=device, dtype=dtype_of(case))

    def error(found: Any) -> float:
        return relative_error(found[: 2**20], torch.full_like(found[: 2**20], 3.0), found[-(2**20) :])

    return Launch(lambda: out.fill_(3.0), error)


def exp2(case: Case, device: str) -> Launch:
    """An exponential of each number: as much read as written, and little else to do."""
    import torch

    source = normal(device, dtype_of(case), case.m)
    out = torch.full_like(source, math.nan)

    def error(found: Any) -> float:
        return relative_error(found[: 2**20], torch.exp2(source[: 2**20].double()), found[-(2**20) :])

    return Launch(lambda: torch.exp2(source, out=out), error)
