"""What kernels compute, from their documentation: one head at a time, full matrices of scores."""

import numpy as np

from . import softmax


def _seen(queries, keys, window):
    """Queries are the last positions; each sees ``window`` keys, its own the last of them."""
    back = np.arange(keys - queries, keys)[:, None] - np.arange(keys)
    return (back >= 0) & (back < window)


def causal_window(x, n):
    """Grouped-query attention, causal, in a window."""
    out = np.zeros((n["b"], n["g"], n["r"], n["f"], n["p"]))
    for b, g, r in np.ndindex(n["b"], n["g"], n["r"]):
        scores = x["Q"][b, g, r].T @ x["K"][b, g] / np.sqrt(n["e"])
        out[b, g, r] = x["V"][b, g] @ softmax(scores, mask=_seen(n["p"], n["m"], n["w"])).T
    return out


def packed_causal_window(x, n):
    """The same with the query heads of a position in rows that follow each other."""
    heads = x["Q"].reshape(n["b"], n["g"], n["e"], n["p"], n["r"])
    out = causal_window({**x, "Q": np.moveaxis(heads, -1, 2)}, n)
    return np.moveaxis(out, 2, -1).reshape(n["b"], n["g"], n["f"], n["p"] * n["r"])


def row_softmax(x, n):
    """Each row of the transposed input."""
    return softmax(x["X"].T).T


def copied(x, n):
    """The inputs."""
    return {"KC": x["K"], "VC": x["V"]}
