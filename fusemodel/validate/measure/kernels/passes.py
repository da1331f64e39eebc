"""Attention in one, two and three passes over the keys (Nayak et al., FuseMax, MICRO 2024, section 4), in one kernel
with the same tiles, or in three launches with the scores in memory."""

# pyright: reportMissingImports=false, reportOptionalMemberAccess=false, reportInvalidTypeForm=false
# pyright: reportArgumentType=false, reportIndexIssue=false, reportGeneralTypeIssues=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportReturnType=false
from __future__ import annotations

import math
from typing import Any

import triton
import triton.language as tl

from fusemodel.validate.measure.case import Case
from fusemodel.validate.measure.kernels.launch import Launch, heads
from fusemodel.validate.measure.kernels.reference import attention_error
from fusemodel.validate.measure.kernels.tuning import Setting, choose, describe

LOG2_E = 1.4426950408889634


@triton.jit
def _scores(q, keys, start, rows, seq_kv, D: tl.constexpr, BN: tl.constexpr, CAUSAL: tl.constexpr,
            MASKED: tl.constexpr):  # fmt: skip
    """A tile of Q K^T; -inf at keys that are not there or not seen."""
    cols = start + tl.arange(0, BN)
    dims = tl.arange(0, D)
    where = keys + cols[None, :] * D + dims[:, None]
    if MASKED:  # noqa: SIM108  the compiler takes a constant condition as a statement
        k = tl.load(where, mask=cols[None, :] < seq_kv, other=0.0)
    else:
        k = tl.load(where)
    s = tl.dot(q, k)
    if MASKED:
        visible = cols[None, :] < seq_kv
        if CAUSAL:
            visible = visible & (cols[None, :] <= rows[:, None])
        s = tl.where(visible, s, float("-inf"))
    return s


@triton.jit
def _values(values, start, seq_kv, D: tl.constexpr, BN: tl.constexpr, MASKED: tl.constexpr):
    """A tile of V; zeros past its end."""
    cols = start + tl.arange(0, BN)
    where = values + cols[:, None] * D + tl.arange(0, D)[None, :]
    if MASKED:
        return tl.load(where, mask=cols[:, None] < seq_kv, other=0.0)
    else:  # noqa: RET505  the compiler wants both branches of a constant condition
        return tl.load(where)


@triton.jit
def _traverse(q, keys, values, top, total, acc, low, high, rows, seq_kv, scale, D: tl.constexpr, BN: tl.constexpr,
              CAUSAL: tl.constexpr, MASKED: tl.constexpr, MAX: tl.constexpr, SUM: tl.constexpr, OUT: tl.constexpr,
              DIVIDE: tl.constexpr):  # fmt: skip
    """Go over the keys from ``low`` to ``high``, and update what this pass is for: the maximum (before scaling), the
    sum of exponentials, the output; sum and output are rescaled where the maximum moves."""
    for start in range(low, high, BN):
        s = _scores(q, keys, start, rows, seq_kv, D, BN, CAUSAL, MASKED)
        if MAX:
            new = tl.maximum(top, tl.max(s, 1))
            if SUM:
                moved = tl.exp2((top - new) * scale)
                total = total * moved
                if OUT:
                    acc = acc * moved[:, None]
            top = new
        if SUM or OUT:
            p = tl.exp2(s * scale - (top * scale)[:, None])
            if SUM:
                total = total + tl.sum(p, 1)
            if OUT:
                if DIVIDE:
                    p = p * total[:, None]
                v = _values(values, start, seq_kv, D, BN, MASKED)
                acc = tl.dot(p.to(v.dtype), v, acc)
    return top, total, acc


@triton.jit
def _attention(Q, K, V, O, scale, n_heads, share, seq_q, seq_kv, D: tl.constexpr, BM: tl.constexpr,  # noqa: E741
               BN: tl.constexpr, CAUSAL: tl.constexpr, PASSES: tl.constexpr):  # fmt: skip
    tile = tl.program_id(0)
    if CAUSAL:
        tile = tl.num_programs(0) - 1 - tile  # the longest rows first
    head = tl.program_id(1).to(tl.int64)
    kv = head // n_heads * (n_heads // share) + head % n_heads // share
    rows = tile * BM + tl.arange(0, BM)
    dims = tl.arange(0, D)
    inside = rows[:, None] < seq_q
    at = head * seq_q * D + rows[:, None] * D + dims[None, :]
    q = tl.load(Q + at, mask=inside, other=0.0)
    keys = K + kv * seq_kv * D
    values = V + kv * seq_kv * D
    end = seq_kv
    plain = seq_kv // BN * BN
    if CAUSAL:
        end = tl.minimum(tile * BM + BM, seq_kv)
        plain = tl.minimum(tile * BM, seq_kv) // BN * BN
    top = tl.full([BM], float("-inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    if PASSES == 1:
        top, total, acc = _traverse(q, keys, values, top, total, acc, 0, plain, rows, seq_kv, scale, D, BN, CAUSAL,
                                    False, True, True, True, False)  # fmt: skip
        top, total, acc = _traverse(q, keys, values, top, total, acc, plain, end, rows, seq_kv, scale, D, BN, CAUSAL,
                                    True, True, True, True, False)  # fmt: skip
        acc = acc / total[:, None]
    if PASSES == 2:
        top, total, acc = _traverse(q, keys, values, top, total, acc, 0, plain, rows, seq_kv, scale, D, BN, CAUSAL,
                                    False, True, True, False, False)  # fmt: skip
        top, total, acc = _traverse(q, keys, values, top, total, acc, plain, end, rows, seq_kv, scale, D, BN, CAUSAL,
                                    True, True, True, False, False)  # fmt: skip
        top, total, acc = _traverse(q, keys, values, top, total, acc, 0, plain, rows, seq_kv, scale, D, BN, CAUSAL,
                                    False, False, False, True, False)  # fmt: skip
        top, total, acc = _traverse(q, keys, values, top, total, acc, plain, end, rows, seq_kv, scale, D, BN, CAUSAL,
                                    True, False, False, True, False)  # fmt: skip
        acc = acc / total[:, None]
    if PASSES == 3:
        top, total, acc = _traverse(q, keys, values, top, total, acc, 0, plain, rows, seq_kv, scale, D, BN, CAUSAL,
                                    False, True, False, False, False)  # fmt: skip
        top, total, acc = _traverse(q, keys, values, top, total, acc, plain, end, rows, seq_kv, scale, D, BN, CAUSAL,
                                    True, True, False, False, False)  # fmt: skip
        top, total, acc = _traverse(q, keys, values, top, total, acc, 0, plain, rows, seq_kv, scale, D, BN, CAUSAL,
                                    False, False, True, False, False)  # fmt: skip
        top, total, acc = _traverse(q, keys, values, top, total, acc, plain, end, rows, seq_kv, scale, D, BN, CAUSAL,
                                    True, False, True, False, False)  # fmt: skip
        total = 1.0 / total
        top, total, acc = _traverse(q, keys, values, top, total, acc, 0, plain, rows, seq_kv, scale, D, BN, CAUSAL,
                                    False, False, False, True, True)  # fmt: skip
        top, total, acc = _traverse(q, keys, values, top, total, acc, plain, end, rows, seq_kv, scale, D, BN, CAUSAL,
                                    True, False, False, True, True)  # fmt: skip
    tl.store(O + at, acc.to(q.dtype), mask=inside)


@triton.jit
def _store_scores(Q, K, S, scale, n_heads, share, seq_q, seq_kv, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    head = tl.program_id(2).to(tl.int64)
    kv = head // n_heads * (n_heads // share) + head % n_heads // share
    rows = tl.program_id(1) * BM + tl.arange(0, BM)
    start = tl.program_id(0) * BN
    cols = start + tl.arange(0, BN)
    dims = tl.arange(0, D)
    q = tl.load(Q + head * seq_q * D + rows[:, None] * D + dims[None, :], mask=rows[:, None] < seq_q, other=0.0)
    s = _scores(q, K + kv * seq_kv * D, start, rows, seq_kv, D, BN, False, True) * scale
    inside = (rows[:, None] < seq_q) & (cols[None, :] < seq_kv)
    at = head * seq_q * seq_kv + rows[:, None].to(tl.int64) * seq_kv + cols[None, :]
    tl.store(S + at, s.to(q.dtype), mask=inside)


@triton.jit
def _softmax_rows(S, seq_kv, WIDTH: tl.constexpr):
    """Softmax (base 2) of one row, in place."""
    cols = tl.arange(0, WIDTH)
    at = S + tl.program_id(0).to(tl.int64) * seq_kv + cols
    s = tl.load(at, mask=cols < seq_kv, other=float("-inf"))
    wide = s.to(tl.float32)
    p = tl.exp2(wide - tl.max(wide, 0))
    tl.store(at, (p / tl.sum(p, 0)).to(s.dtype), mask=cols < seq_kv)


@triton.jit
def _weigh_values(P, V, O, n_heads, share, seq_q, seq_kv, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):  # noqa: E741
    head = tl.program_id(1).to(tl.int64)
    kv = head // n_heads * (n_heads // share) + head % n_heads // share
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    inside = rows[:, None] < seq_q
    lines = P + head * seq_q * seq_kv + rows[:, None].to(tl.int64) * seq_kv
    acc = tl.zeros([BM, D], tl.float32)
    for start in range(0, seq_kv, BN):
        cols = start + tl.arange(0, BN)
        p = tl.load(lines + cols[None, :], mask=inside & (cols[None, :] < seq_kv), other=0.0)
        v = _values(V + kv * seq_kv * D, start, seq_kv, D, BN, True)
        acc = tl.dot(p, v, acc)
    at = head * seq_q * D + rows[:, None] * D + tl.arange(0, D)[None, :]
    tl.store(O + at, acc.to(O.dtype.element_ty), mask=inside)


def _settings(head_dim: int, device: str) -> list[Setting]:
    if device == "cpu":
        return [(32, 16, 4, 1)]
    if head_dim <= 64:
        return [(128, 128, 8, 3), (128, 64, 4, 3), (64, 64, 4, 2)]
    if head_dim <= 128:
        return [(128, 128, 8, 2), (128, 64, 8, 3), (64, 64, 4, 2)]
    return [(128, 64, 8, 2), (64, 32, 4, 2)]


def fused(case: Case, device: str) -> Launch:
    """One kernel that goes over the keys as often as its name says, computing the scores again in each pass."""
    import torch

    q, k, v = heads(case, device)
    out = torch.full_like(q, math.nan)
    passes = {"triton-1pass": 1, "triton-2pass": 2, "triton-3pass-recompute": 3}[case.kernel]
    scale, d = LOG2_E / math.sqrt(case.head_dim), case.head_dim

    def run_as(setting: Setting) -> Any:
        rows, cols, warps, stages = setting
        grid = (triton.cdiv(case.seq_q, rows), case.batch * case.heads)
        _attention[grid](q, k, v, out, scale, case.heads, case.heads // case.kv_heads, case.seq_q, case.seq_kv, d, rows,
                         cols, bool(case.causal), passes, num_warps=warps, num_stages=stages)  # fmt: skip
        return out

    setting = choose(device, _settings(d, device), run_as)
    return Launch(lambda: run_as(setting), lambda found: attention_error(case, q, k, v, found), describe(setting))


def unfused(case: Case, device: str) -> Launch:
    """Three launches: scores to memory, softmax in place, weights times values."""
    import torch

    q, k, v = heads(case, device)
    out = torch.full_like(q, math.nan)
    scores = torch.full((case.batch, case.heads, case.seq_q, case.seq_kv), math.nan, device=device, dtype=q.dtype)
    scale, d, share = LOG2_E / math.sqrt(case.head_dim), case.head_dim, case.heads // case.kv_heads
    many, width = case.batch * case.heads, triton.next_power_of_2(case.seq_kv)

    def run_as(setting: Setting) -> Any:
        rows, cols, warps, stages = setting
        tiles = triton.cdiv(case.seq_q, rows)
        _store_scores[(triton.cdiv(case.seq_kv, cols), tiles, many)](
            q, k, scores, scale, case.heads, share, case.seq_q, case.seq_kv, d, rows, cols, num_warps=warps
        )
        _softmax_rows[(many * case.seq_q,)](scores, case.seq_kv, width, num_warps=8 if width > 2048 else 4)
        _weigh_values[(tiles, many)](
            scores, v, out, case.heads, share, case.seq_q, case.seq_kv, d, rows, cols,
            num_warps=warps, num_stages=stages,
        )  # fmt: skip
        return out

    setting = choose(device, _settings(d, device), run_as)
    return Launch(lambda: run_as(setting), lambda found: attention_error(case, q, k, v, found), describe(setting))
