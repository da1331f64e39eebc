"""Mechanisms in plain NumPy, one file a family: what the cascades of the library are checked against.

Every public function of a family takes the inputs of a cascade as float64 arrays by name, axes in the order of the
file with the batch ranks in front, and the extents by rank; it returns the output, or the outputs by name. Written
from the equations and never through the interpreter. The wheel ships them for ``fusemodel run``.
"""

from __future__ import annotations

import numpy as np


def softmax(scores, axis=-1, mask=None):
    """Exponentials that sum to 1 along an axis; where ``mask`` is false 0; a row with nothing left is 0."""
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    top = scores.max(axis=axis, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
    total = weights.sum(axis=axis, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
