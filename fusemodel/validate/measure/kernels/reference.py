"""Attention in float64 at sampled heads and queries, written from its definition."""

# pyright: reportMissingImports=false
from __future__ import annotations

import math
from typing import Any

from fusemodel.validate.measure.case import Case
from fusemodel.validate.measure.kernels.launch import relative_error, spread


def attention_error(case: Case, q: Any, k: Any, v: Any, out: Any) -> float:
    """Relative error of ``out`` [B, H, Sq, d] against softmax(Q K^T / sqrt(d)) V, queries seeing what the case says."""
    import torch

    rows = torch.tensor(spread(case.seq_q), device=q.device)
    found, expected = [], []
    for b, h, kv in _heads(case):
        scores = q[b, h, rows].double() @ k[b, kv].double().T / math.sqrt(case.head_dim)
        scores = scores.masked_fill(~seen(case, rows), -math.inf)
        expected.append(torch.softmax(scores, -1) @ v[b, kv].double())
        found.append(out[b, h, rows])
    return relative_error(torch.stack(found), torch.stack(expected), out)


def linear_error(case: Case, q: Any, k: Any, v: Any, out: Any) -> float:
    """Relative error of ``out`` [B, H, S, d] against o_t = sum over s <= t of (q_t . k_s) v_s."""
    import torch

    rows = torch.tensor(spread(case.seq_q), device=q.device)
    found, expected = [], []
    for b, h, kv in _heads(case):
        weights = q[b, h, rows].double() @ k[b, kv].double().T
        expected.append(weights.masked_fill(~seen(case, rows), 0.0) @ v[b, kv].double())
        found.append(out[b, h, rows])
    return relative_error(torch.stack(found), torch.stack(expected), out)


def seen(case: Case, rows: Any) -> Any:
    """Which keys some queries see: [rows, Skv]."""
    import torch

    # one query of a cache is the last position of its sequence
    before = case.seq_kv - case.seq_q if case.op == "generation_attention" else 0
    i, j = rows[:, None] + before, torch.arange(case.seq_kv, device=rows.device)[None, :]
    visible = torch.ones((len(rows), case.seq_kv), dtype=torch.bool, device=rows.device)
    if case.causal:
        visible &= j <= i
    if case.window:
        visible &= i - j < case.window
    return visible


def _heads(case: Case) -> list[tuple[int, int, int]]:
    """Batch, head and its key head: the first, the last and one between."""
    last_b, last_h = case.batch - 1, case.heads - 1
    share = case.heads // case.kv_heads
    chosen = dict.fromkeys([(0, 0), (last_b // 2, last_h // 2), (last_b, last_h)])
    return [(b, h, h // share) for b, h in chosen]
