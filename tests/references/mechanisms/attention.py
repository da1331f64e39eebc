"""Softmax attention in formats of few bits."""

from __future__ import annotations

import numpy as np

from . import softmax


def _eight_bits():
    """All numbers of the format e4m3, up to 448."""
    exponents, fractions = np.meshgrid(np.arange(-6, 9), np.arange(8))
    normal = 2.0**exponents * (1 + fractions / 8)
    small = 2.0**-6 * np.arange(8) / 8
    positive = np.unique(np.concatenate([normal[normal <= 448], small]))
    return np.concatenate([-positive[:0:-1], positive])


def _rounded(y, size):
    """Blocks of positions (the last axis) scaled to 448, every number replaced by the nearest in the format, of two
    that are equally near the even one."""
    numbers, out = _eight_bits(), np.empty_like(y)
    odd = np.abs(np.arange(len(numbers)) - len(numbers) // 2) % 2  # the last bit of the fraction
    for start in range(0, y.shape[-1], size):
        block = y[..., start : start + size]
        largest = np.abs(block).max(axis=(-2, -1), keepdims=True)
        scale = np.where(largest > 0, largest / 448, 1)
        above = np.clip(np.searchsorted(numbers, block / scale), 1, len(numbers) - 1)
        up, down = numbers[above] - block / scale, block / scale - numbers[above - 1]
        higher = (up < down) | ((up == down) & (odd[above] == 0))
        out[..., start : start + size] = numbers[above - ~higher] * scale
    return out


def rounded(x, n):
    """Queries and keys turned by a Hadamard matrix (Sylvester's construction) whose columns have random signs."""
    turn = np.ones((1, 1))
    while len(turn) < n["e"]:
        turn = np.block([[turn, turn], [turn, -turn]])
    turn = turn * np.where(x["SIGN"] > 0, 1, -1)[..., None, :] / np.sqrt(n["e"])
    q, k = (_rounded(turn @ x[t], n[size]) for t, size in (("Q", "p0"), ("K", "m0")))
    scores = np.swapaxes(q, -1, -2) @ k
    return np.swapaxes(softmax(scores) @ np.swapaxes(_rounded(x["V"], n["m0"]), -1, -2), -1, -2)
