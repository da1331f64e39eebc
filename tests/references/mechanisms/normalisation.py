"""Norms, logarithms of sums, and matrices scaled to given sums."""

from __future__ import annotations

import numpy as np

from . import softmax


def batch_norm(x, n):
    """Channels are columns, each with the mean and the deviation of its own samples."""
    out = np.zeros((n["n"], n["c"]))
    for c in range(n["c"]):
        channel = x["X"][:, c]
        out[:, c] = x["G"][c] * (channel - channel.mean()) / np.sqrt(channel.var() + 1e-5) + x["BETA"][c]
    return out


def layer_norm(x, n):
    """One position at a time."""
    out = np.zeros((n["n"], n["p"]))
    for p in range(n["p"]):
        row = x["X"][:, p]
        out[:, p] = x["G"] * (row - row.mean()) / np.sqrt(row.var() + 1e-5) + x["B"]
    return out


def rms_norm(x, n):
    """One position at a time."""
    out = np.zeros((n["n"], n["p"]))
    for p in range(n["p"]):
        row = x["X"][:, p]
        out[:, p] = x["G"] * row / np.sqrt(row @ row / n["n"] + 1e-6)
    return out


def mean_and_variance(x, n):
    """Of each row, the variance over all elements and not over one less."""
    return {"MU": x["X"].mean(axis=0), "VAR": x["X"].var(axis=0)}


def log_sum_exp(x, n):
    """Elements joined pair by pair."""
    return np.logaddexp.reduce(x["X"], axis=0)


def cross_entropy(x, n):
    """The negative logarithm of the probability of each row's target."""
    return np.array([-np.log(softmax(x["X"][:, p])[x["LABEL"][p]]) for p in range(n["p"])])


def cosine_similarity(x, n):
    """The product of two rows of length 1."""
    unit = [x[name] / np.linalg.norm(x[name], axis=0) for name in "XY"]
    return (unit[0] * unit[1]).sum(axis=0)


def sinkhorn(x, n):
    """Rows, then columns, divided by their sums, K times over; rows once more."""
    matrix = np.exp(x["X"])
    for _ in range(n["k"]):
        matrix /= matrix.sum(axis=1, keepdims=True)
        matrix /= matrix.sum(axis=0, keepdims=True)
    return matrix / matrix.sum(axis=1, keepdims=True)


def topk_normalise(x, n):
    """The S largest, in order, over their sum."""
    largest = np.sort(x["X"], axis=0)[::-1][: n["s"]]
    return largest / largest.sum(axis=0)
