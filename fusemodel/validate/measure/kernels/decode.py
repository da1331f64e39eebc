"""One query per sequence: the keys are split over thread blocks, then their partial results are merged."""

# pyright: reportMissingImports=false, reportOptionalMemberAccess=false, reportInvalidTypeForm=false
# pyright: reportArgumentType=false, reportIndexIssue=false, reportGeneralTypeIssues=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportReturnType=false
from __future__ import annotations

import math
from typing import Any

import triton
import triton.language as tl

from fusemodel.validate.measure.case import Case
from fusemodel.validate.measure.kernels.launch import Launch, Unsupported, heads
from fusemodel.validate.measure.kernels.passes import LOG2_E
from fusemodel.validate.measure.kernels.reference import attention_error
from fusemodel.validate.measure.kernels.tuning import Setting, choose, describe

#: Thread blocks aimed at on each multiprocessor, and the most parts a sequence is split into.
BLOCKS_PER_SM, MAX_SPLITS = 2, 128


@triton.jit
def _split(Q, K, V, TOP, TOTAL, PART, scale, share, seq_kv, per_split, D: tl.constexpr, GROUP: tl.constexpr,
           BN: tl.constexpr):  # fmt: skip
    """Maximum, sum of exponentials and weighted sum of the values of one part, for the heads that share keys."""
    split = tl.program_id(0)
    splits = tl.num_programs(0)
    kv = tl.program_id(1).to(tl.int64)
    rows = tl.arange(0, GROUP)
    cols = tl.arange(0, BN)
    dims = tl.arange(0, D)
    head = kv * share + rows
    q = tl.load(Q + head[:, None] * D + dims[None, :], mask=rows[:, None] < share, other=0.0)
    keys = K + kv * seq_kv * D
    values = V + kv * seq_kv * D
    top = tl.full([GROUP], float("-inf"), tl.float32)
    total = tl.zeros([GROUP], tl.float32)
    acc = tl.zeros([GROUP, D], tl.float32)
    for start in range(split * per_split, tl.minimum(split * per_split + per_split, seq_kv), BN):
        at = start + cols
        k = tl.load(keys + at[None, :] * D + dims[:, None], mask=at[None, :] < seq_kv, other=0.0)
        s = tl.where(at[None, :] < seq_kv, tl.dot(q, k), float("-inf"))
        new = tl.maximum(top, tl.max(s, 1))
        moved = tl.exp2((top - new) * scale)
        p = tl.exp2(s * scale - (new * scale)[:, None])
        total = total * moved + tl.sum(p, 1)
        v = tl.load(values + at[:, None] * D + dims[None, :], mask=at[:, None] < seq_kv, other=0.0)
        acc = tl.dot(p.to(v.dtype), v, acc * moved[:, None])
        top = new
    at = head * splits + split
    tl.store(TOP + at, top * scale, mask=rows < share)
    tl.store(TOTAL + at, total, mask=rows < share)
    tl.store(PART + at[:, None] * D + dims[None, :], acc, mask=rows[:, None] < share)


@triton.jit
def _merge(TOP, TOTAL, PART, O, splits, D: tl.constexpr, WIDTH: tl.constexpr):  # noqa: E741
    """The parts of one head, rescaled to their common maximum and added."""
    head = tl.program_id(0).to(tl.int64)
    parts = tl.arange(0, WIDTH)
    dims = tl.arange(0, D)
    at = head * splits + parts
    top = tl.load(TOP + at, mask=parts < splits, other=float("-inf"))
    weight = tl.exp2(top - tl.max(top, 0))
    total = tl.sum(weight * tl.load(TOTAL + at, mask=parts < splits, other=0.0), 0)
    part = tl.load(PART + at[:, None] * D + dims[None, :], mask=parts[:, None] < splits, other=0.0)
    out = tl.sum(part * weight[:, None], 0) / total
    tl.store(O + head * D + dims, out.to(O.dtype.element_ty))


def split_kv(case: Case, device: str) -> Launch:
    """Two launches: parts, and their merging. As many parts as fill the device."""
    import torch

    if case.seq_q != 1 or case.causal or case.window:
        raise Unsupported("one query that sees every key")
    q, k, v = heads(case, device)
    out = torch.full_like(q, math.nan)
    scale, d, share = LOG2_E / math.sqrt(case.head_dim), case.head_dim, case.heads // case.kv_heads
    many = case.batch * case.kv_heads
    sms = 4 if device == "cpu" else torch.cuda.get_device_properties(0).multi_processor_count

    def parts_of(block: int) -> tuple[int, int]:
        """Keys in a part, and parts."""
        wanted = max(1, min(MAX_SPLITS, triton.cdiv(BLOCKS_PER_SM * sms, many)))
        per = triton.cdiv(triton.cdiv(case.seq_kv, wanted), block) * block
        return per, triton.cdiv(case.seq_kv, per)

    store: dict[int, tuple[Any, Any, Any]] = {}

    def run_as(setting: Setting) -> Any:
        group, block, warps, stages = setting
        per, splits = parts_of(block)
        if splits not in store:
            store[splits] = tuple(
                torch.full((case.batch * case.heads, splits, *tail), math.nan, device=device, dtype=torch.float32)
                for tail in ((), (), (d,))
            )
        top, total, part = store[splits]
        _split[(splits, many)](
            q, k, v, top, total, part, scale, share, case.seq_kv, per, d, group, block,
            num_warps=warps, num_stages=stages,
        )  # fmt: skip
        _merge[(case.batch * case.heads,)](top, total, part, out, splits, d, triton.next_power_of_2(splits))
        return out

    group = max(16, triton.next_power_of_2(share))
    settings = [(group, 32, 4, 1)] if device == "cpu" else [(group, 64, 4, 3), (group, 128, 4, 2), (group, 32, 4, 2)]
    setting = choose(device, settings, run_as)
    config = f"{describe(setting)} splits={parts_of(setting[1])[1]}"
    return Launch(lambda: run_as(setting), lambda found: attention_error(case, q, k, v, found), config)
