"""Heads that share keys and values, or are mixed."""

from __future__ import annotations

import numpy as np

from . import softmax


def grouped_query(x, n):
    """Attention in which R queries heads of a group share one key and value head; scores over sqrt(E)."""
    scores = np.einsum("bgrep,bgem->bgrpm", x["Q"], x["K"]) / np.sqrt(n["e"])
    return np.einsum("bgrpm,bgfm->bgrfp", softmax(scores), x["V"])


def _head(q, k, v, mask=None):
    """One head: q (features, queries), k (features, keys), v (values, keys); (values, queries)."""
    return v @ softmax(q.T @ k / np.sqrt(len(q)), mask=mask).T


def _lower(queries, keys):
    """Queries are the last positions, and see no later key."""
    return np.arange(keys) <= np.arange(keys - queries, keys)[:, None]


def _normed(y, gain, axis, eps):
    """Divided by the root mean square; ``gain`` as wide as the axis, which is the first one counted from ``axis``."""
    shape = [-1] + [1] * (-axis - 1)
    return y / np.sqrt((y**2).mean(axis=axis, keepdims=True) + eps) * gain.reshape(shape)


def _turned(y, positions):
    """Pairs along the last axis but one are complex numbers, turned by positions times powers of 10000."""
    r = y.shape[-2]
    turn = np.exp(1j * np.outer(10000.0 ** (-np.arange(0, r, 2) / r), positions))
    z = (y[..., 0::2, :] + 1j * y[..., 1::2, :]) * turn
    return np.stack((z.real, z.imag), axis=-2).reshape(y.shape)


def multi_head(x, n):
    """Heads one after another, joined into one vector and projected."""
    return _projected_heads(x, x["X"], None, n)


def cross(x, n):
    """Keys and values of a second sequence, those only that are no padding."""
    return _projected_heads(x, x["Y"], x["KEEP"], n)


def _projected_heads(x, context, keep, n):
    out = np.zeros((n["b"], x["WO"].shape[-1], n["p"]))
    for b in range(n["b"]):
        mask = None if keep is None else np.broadcast_to(keep[b], (n["p"], n["m"]))
        heads = [
            _head(x["WQ"][:, h].T @ x["X"][b], x["WK"][:, h].T @ context[b], x["WV"][:, h].T @ context[b], mask)
            for h in range(n["h"])
        ]
        out[b] = x["WO"].reshape(-1, out.shape[1]).T @ np.concatenate(heads)
    return out


def multi_query(x, n):
    """The one head of keys and values copied to every query head."""
    out = np.zeros((n["b"], n["h"], n["f"], n["p"]))
    for b, h in np.ndindex(n["b"], n["h"]):
        out[b, h] = _head(x["Q"][b, h], x["K"][b], x["V"][b])
    return out


def grouped_query_step(x, n):
    """The last P positions of grouped-query attention, each without later keys."""
    out = np.zeros((n["b"], n["g"], n["r"], n["f"], n["p"]))
    for b, g, r in np.ndindex(n["b"], n["g"], n["r"]):
        out[b, g, r] = _head(x["Q"][b, g, r], x["K"][b, g], x["V"][b, g], _lower(n["p"], n["m"]))
    return out


def grouped_query_causal(x, n):
    """Every position of grouped-query attention, each without later keys."""
    return grouped_query_step(x, n)


def latent(x, n):
    """Keys and values of every head unpacked from the latents, content and position parts joined into longer keys."""
    cache = _normed(np.einsum("dl,bdm->blm", x["WDKV"], x["X"]), x["GKV"], -2, 1e-6)
    rotary = _turned(np.einsum("dr,bdm->brm", x["WKR"], x["X"]), np.arange(n["p"]))
    return _latent_heads(x, cache, rotary, n)


def latent_step(x, n):
    """The same for the last P positions, latents and rotated keys read from a cache."""
    return _latent_heads(x, x["CKV"], x["KR"], n)


def _latent_heads(x, cache, rotary, n):
    keys = cache.shape[-1]
    queries = _normed(np.einsum("dj,bdp->bjp", x["WDQ"], x["X"]), x["GQ"], -2, 1e-6)
    out = np.zeros((n["b"], x["WO"].shape[-1], n["p"]))
    for b, h in np.ndindex(n["b"], n["h"]):
        turned = _turned(x["WQR"][:, h].T @ queries[b], np.arange(keys - n["p"], keys))
        q = np.concatenate([x["WUQ"][:, h].T @ queries[b], turned])
        k = np.concatenate([x["WUK"][:, h].T @ cache[b], rotary[b]])
        out[b] += x["WO"][h].T @ _head(q, k, x["WUV"][:, h].T @ cache[b], _lower(n["p"], keys))
    return out


def latent_core(x, n):
    """Attention of every head to its own keys and values, unpacked from the latents; causal."""
    out = np.zeros((n["b"], n["h"], n["f"], n["p"]))
    for b, h in np.ndindex(n["b"], n["h"]):
        q = np.concatenate([x["QN"][b, h], x["QR"][b, h]])
        k = np.concatenate([x["WUK"][:, h].T @ x["CKV"][b], x["KR"][b]])
        out[b, h] = _head(q, k, x["WUV"][:, h].T @ x["CKV"][b], _lower(n["p"], n["p"]))
    return out


def differential(x, n):
    """Two softmax maps subtracted; the norm of each head on its own, times 1 - lambda_init of layer l."""
    start = 0.8 - 0.6 * np.exp(-0.3 * (n["l"] - 1))
    weight = np.exp(x["LQ1"] @ x["LK1"]) - np.exp(x["LQ2"] @ x["LK2"]) + start
    out = np.zeros((n["b"], n["h"], n["f"], n["p"]))
    for b, h in np.ndindex(n["b"], n["h"]):
        one, two = (_head(x[f"Q{i}"][b, h], x[f"K{i}"][b, h], x["V"][b, h]) for i in (1, 2))
        out[b, h] = (1 - start) * _normed(one - weight * two, x["G"], -2, 1e-5)
    return out


def mixture_of_heads(x, n):
    """Every head computed, then multiplied by its gate, token by token; routed heads not chosen have the gate 0."""
    out = np.zeros((n["b"], n["c"], n["p"]))
    for b in range(n["b"]):
        gates = np.zeros((n["h"], n["p"]))
        for p in range(n["p"]):
            token = x["X"][b, :, p]
            balance = 2 * softmax(token @ x["W0"])
            gates[: n["s"], p] = balance[0] * n["s"] * softmax(token @ x["W1"])
            routed = softmax(token @ x["WG"])
            chosen = np.argsort(-routed, kind="stable")[: n["t"]]
            gates[n["s"] + chosen, p] = balance[1] * n["t"] * routed[chosen] / routed[chosen].sum()
        for h in range(n["h"]):
            q, k, v = (x[w][:, h].T @ x["X"][b] for w in ("WQ", "WK", "WV"))
            out[b] += x["WO"][h].T @ (_head(q, k, v) * gates[h])
    return out


def mixture_of_llama_heads(x, n):
    """Every head computed with its key head repeated, then those not among the best T of a token set to 0."""
    out = np.zeros((n["b"], n["d"], n["p"]))
    for b in range(n["b"]):
        norms = np.linalg.norm(x["Q"][b, n["s"] :], axis=1) / np.exp(x["SPREAD"])[:, None]
        ranked = np.argsort(np.argsort(-norms, axis=0, kind="stable"), axis=0)
        active = np.concatenate([np.ones((n["s"], n["p"])), ranked < n["t"]])
        for h in range(n["h"]):
            g = [g for g in range(n["g"]) for _ in range(n["r"])][h]
            head = _head(x["Q"][b, h], x["K"][b, g], x["V"][b, g], _lower(n["p"], n["m"]))
            out[b] += x["WO"][h].T @ (head * active[h])
    return out


def _counts(importance, heads):
    """Shares of the heads in proportion to importance between its least and largest, rounded, halves to even."""
    spread = importance.max() - importance.min()
    shares = (importance - importance.min()) / spread if spread > 0 else np.ones_like(importance)
    return np.array([round(share) for share in (shares / shares.sum() * heads).tolist()])


def _norms(keys):
    """The Frobenius norm of each group's keys, summed over the batch."""
    return np.array([sum(np.linalg.norm(keys[b, g]) for b in range(len(keys))) for g in range(keys.shape[1])])


def _served(x, n, counts):
    """Heads given to groups in order, as many as counted."""
    groups = np.repeat(np.arange(n["g"]), counts)
    out = np.zeros((n["b"], n["h"], n["f"], n["p"]))
    for b in range(n["b"]):
        for h, g in enumerate(groups):
            out[b, h] = _head(x["Q"][b, h], x["K"][b, g], x["V"][b, g])
    return out


def key_driven(x, n):
    """While too many heads are given out the largest group loses one; while too few the smallest gains one."""
    counts = _counts(_norms(x["K"]), n["h"])
    while counts.sum() > n["h"]:
        counts[np.argmax(counts)] -= 1
    while counts.sum() < n["h"]:
        counts[np.argmin(counts)] += 1
    return _served(x, n, counts)


def dynamic_by_difference(x, n):
    return _dynamic(x, n, np.abs(_norms(x["K"]) - x["NC"]))


def dynamic_by_average(x, n):
    return _dynamic(x, n, 0.9 * _norms(x["K"]) + 0.1 * x["NC"])


def _dynamic(x, n, importance):
    """The group that loses or gains one is the luckiest; one without heads cannot lose any."""
    counts = _counts(importance, n["h"])
    for luck in x["LUCK"]:
        if counts.sum() < n["h"]:
            counts[np.argmax(luck)] += 1
        elif counts.sum() > n["h"]:
            counts[np.argmax(np.where(counts > 0, luck, -np.inf))] -= 1
    return _served(x, n, counts)


def perturbed_grouped_query(x, n):
    """Noise with the mean and the sample deviation of a row of the output is taken from it."""
    out = grouped_query(x, n)
    return out - (x["Y"] * out.std(axis=-2, ddof=1, keepdims=True) + out.mean(axis=-2, keepdims=True))


def _log_weights(q, k):
    """Logarithms of softmax weights of scaled dot products, by the log-sum-exp of rows."""
    scores = np.swapaxes(q, -1, -2) @ k / np.sqrt(q.shape[-2])
    top = scores.max(axis=-1, keepdims=True)
    return scores - top - np.log(np.exp(scores - top).sum(axis=-1, keepdims=True))


def _divergence(teacher, student):
    """Of weights of the teacher from those of the student, a mean over rows."""
    return (np.exp(teacher) * (teacher - student)).sum(axis=-1).mean()


def minilm(x, n):
    """Divergence of attention weights, and of relations of values to values."""
    attention = _divergence(_log_weights(x["QT"], x["KT"]), _log_weights(x["QS"], x["KS"]))
    return attention + _divergence(_log_weights(x["VT"], x["VT"]), _log_weights(x["VS"], x["VS"]))


def minilm_v2(x, n):
    """The divergences of the A kinds of relations, summed."""
    kinds = [(x["XT"][:, a], x["XS"][:, a]) for a in range(n["a"])]
    return sum(_divergence(_log_weights(t, t), _log_weights(s, s)) for t, s in kinds)
