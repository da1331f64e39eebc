"""Heads that share keys and values, or are mixed."""

from __future__ import annotations

import numpy as np

from . import softmax


def grouped_query(x, n):
    """Attention in which R queries heads of a group share one key and value head; scores over sqrt(E)."""
    scores = np.einsum("bgrep,bgem->bgrpm", x["Q"], x["K"]) / np.sqrt(n["e"])
    return np.einsum("bgrpm,bgfm->bgrfp", softmax(scores), x["V"])
