"""Attention in plain NumPy and in loops, over the last two axes: Q is (..., E, P), K (..., E, M), V (..., F, M)."""

from __future__ import annotations

import numpy as np


def attention(q, k, v, mask=None, scale=1.0):
    """``softmax(Q K^T) V``; ``mask`` (P, M) is true where a query attends a key; without any it gets zeros."""
    scores = scale * np.swapaxes(q, -1, -2) @ k
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    top = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
    total = weights.sum(axis=-1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return np.swapaxes(weights @ np.swapaxes(v, -1, -2), -1, -2)


def attention_by_loops(q, k, v):
    """The same for one batch, one number at a time."""
    features, queries = q.shape
    keys, values = k.shape[1], v.shape[0]
    out = np.zeros((values, queries))
    for p in range(queries):
        scores = [sum(q[e, p] * k[e, m] for e in range(features)) for m in range(keys)]
        top = max(scores)
        weights = [np.exp(s - top) for s in scores]
        for f in range(values):
            out[f, p] = sum(w * v[f, m] for m, w in enumerate(weights)) / sum(weights)
    return out
