"""Causal linear attention in chunks: a state of each chunk, their running sum, and the outputs.

The steps of Dao et al., Transformers are SSMs, ICML 2024, section 6, without decay."""

# pyright: reportMissingImports=false, reportOptionalMemberAccess=false, reportInvalidTypeForm=false
# pyright: reportArgumentType=false, reportIndexIssue=false, reportGeneralTypeIssues=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportReturnType=false
from __future__ import annotations

import math
from typing import Any

import triton
import triton.language as tl

from fusemodel.validate.measure.case import CHUNK, Case
from fusemodel.validate.measure.kernels.launch import Launch, Unsupported, heads
from fusemodel.validate.measure.kernels.reference import linear_error
from fusemodel.validate.measure.kernels.tuning import Setting, choose, describe


@triton.jit
def _chunk_states(K, V, STATE, seq, D: tl.constexpr, C: tl.constexpr, BV: tl.constexpr):
    """K^T V of one chunk, a block of its columns."""
    chunk = tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    steps = chunk * C + tl.arange(0, C)
    dims = tl.arange(0, D)
    cols = tl.program_id(2) * BV + tl.arange(0, BV)
    base = head * seq * D
    k = tl.load(K + base + steps[None, :] * D + dims[:, None], mask=steps[None, :] < seq, other=0.0)
    v = tl.load(V + base + steps[:, None] * D + cols[None, :], mask=steps[:, None] < seq, other=0.0)
    at = (head * tl.num_programs(0) + chunk) * D * D + dims[:, None] * D + cols[None, :]
    tl.store(STATE + at, tl.dot(k, v))


@triton.jit
def _running_sum(STATE, BEFORE, chunks, size, BLOCK: tl.constexpr):
    """What the chunks before each one add up to."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    head = tl.program_id(1).to(tl.int64)
    total = tl.zeros([BLOCK], tl.float32)
    for chunk in range(chunks):
        where = (head * chunks + chunk) * size + at
        tl.store(BEFORE + where, total.to(BEFORE.dtype.element_ty), mask=at < size)
        total += tl.load(STATE + where, mask=at < size, other=0.0)


@triton.jit
def _chunk_outputs(Q, K, V, BEFORE, O, seq, D: tl.constexpr, C: tl.constexpr, BV: tl.constexpr):  # noqa: E741
    """Q times the state before the chunk, and attention without softmax within it."""
    chunk = tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    within = tl.arange(0, C)
    steps = chunk * C + within
    dims = tl.arange(0, D)
    cols = tl.program_id(2) * BV + tl.arange(0, BV)
    base = head * seq * D
    inside = steps[:, None] < seq
    q = tl.load(Q + base + steps[:, None] * D + dims[None, :], mask=inside, other=0.0)
    k = tl.load(K + base + steps[None, :] * D + dims[:, None], mask=steps[None, :] < seq, other=0.0)
    v = tl.load(V + base + steps[:, None] * D + cols[None, :], mask=inside, other=0.0)
    at = (head * tl.num_programs(0) + chunk) * D * D + dims[:, None] * D + cols[None, :]
    acc = tl.dot(q, tl.load(BEFORE + at))
    s = tl.where(within[None, :] <= within[:, None], tl.dot(q, k), 0.0)
    acc = tl.dot(s.to(v.dtype), v, acc)
    tl.store(O + base + steps[:, None] * D + cols[None, :], acc.to(q.dtype), mask=inside)


def chunked(case: Case, device: str) -> Launch:
    """Three launches; states are summed in single precision and read in the dtype of the inputs."""
    import torch

    if case.heads != case.kv_heads or case.seq_q != case.seq_kv or not case.causal:
        raise Unsupported("causal, with as many key heads as heads")
    q, k, v = heads(case, device)
    out = torch.full_like(q, math.nan)
    seq, d, many, chunks = case.seq_q, case.head_dim, case.batch * case.heads, triton.cdiv(case.seq_q, CHUNK)
    state = torch.full((many, chunks, d, d), math.nan, device=device, dtype=torch.float32)
    before = torch.full_like(state, math.nan, dtype=q.dtype)
    block = 1024

    def run_as(setting: Setting) -> Any:
        chunk, cols, warps, stages = setting
        grid = (chunks, many, d // cols)
        options = {"num_warps": warps, "num_stages": stages}
        _chunk_states[grid](k, v, state, seq, d, chunk, cols, **options)
        _running_sum[(triton.cdiv(d * d, block), many)](state, before, chunks, d * d, block)
        _chunk_outputs[grid](q, k, v, before, out, seq, d, chunk, cols, **options)
        return out

    columns = [d, d // 2] if d >= 64 else [d]
    settings = [(CHUNK, n, 8 if n > 64 else 4, 1) for n in columns]
    setting = choose(device, settings, run_as)
    return Launch(lambda: run_as(setting), lambda found: linear_error(case, q, k, v, found), describe(setting))
