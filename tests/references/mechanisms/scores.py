"""Scores with biases, masks and temperatures, and weights edited after the softmax."""

from __future__ import annotations

import numpy as np

from . import softmax


def _attend(scores, values, mask=None):
    """Weights over the last axis of scores (..., p, m), applied to values (..., f, m); (..., f, p)."""
    return np.einsum("...pm,...fm->...fp", softmax(scores, mask=mask), values)


def _scores(x, n):
    return np.einsum("...ep,...em->...pm", x["Q"], x["K"]) / np.sqrt(n["e"])


def _lower(n):
    return np.tril(np.ones((n["p"], n["m"]), bool))


def scaled(x, n):
    """Softmax of dot products over sqrt(E)."""
    return _attend(_scores(x, n), x["V"])


def causal(x, n):
    """Every query sees the first keys only, one prefix after another."""
    out = np.zeros((*x["Q"].shape[:-2], n["f"], n["p"]))
    scores = _scores(x, n)
    for p in range(n["p"]):
        weights = softmax(scores[..., p, : p + 1])
        out[..., p] = np.einsum("...m,...fm->...f", weights, x["V"][..., : p + 1])
    return out


def masked(x, n):
    """Scores where a given mask is true."""
    return _attend(_scores(x, n), x["V"], x["KEEP"])


def alibi(x, n):
    """Slopes are the geometric sequence that starts at 2^(-8/H) with that same ratio."""
    ratio = 2 ** (-8 / n["h"])
    slopes = np.cumprod(np.full(n["h"], ratio))
    distance = np.subtract.outer(np.arange(n["p"]), np.arange(n["m"]))
    return _attend(_scores(x, n) - slopes[:, None, None] * distance, x["V"], _lower(n))


def softcap(x, n):
    """Scores s become 50 tanh(s / 50)."""
    return _attend(50 * np.tanh(_scores(x, n) / 50), x["V"], _lower(n))


def rope(x, n):
    """Pairs of features are complex numbers, multiplied by exp(i position theta)."""
    theta = 10000.0 ** (-np.arange(0, n["e"], 2) / n["e"])
    turn = np.exp(1j * np.outer(theta, np.arange(n["p"])))
    q = (x["Q"][..., 0::2, :] + 1j * x["Q"][..., 1::2, :]) * turn
    k = (x["K"][..., 0::2, :] + 1j * x["K"][..., 1::2, :]) * turn
    scores = np.einsum("...ip,...im->...pm", q, k.conj()).real / np.sqrt(n["e"])
    return _attend(scores, x["V"], _lower(n))


def forgetting(x, n):
    """Unnormalised weights are exp(q k) times the product of the gates after the key, up to the query."""
    gate = 1 / (1 + np.exp(-x["FG"]))
    decay = np.zeros((*gate.shape, n["p"]))
    for p in range(n["p"]):
        for m in range(p + 1):
            decay[..., p, m] = gate[..., m + 1 : p + 1].prod(axis=-1)
    weights = np.exp(_scores(x, n)) * decay
    return np.einsum("...pm,...fm->...fp", weights / weights.sum(axis=-1, keepdims=True), x["V"])


def _shifted(table):
    """table[..., p, p - m] at p, m, of products by distance; zero for later keys."""
    rows, columns = np.tril_indices(table.shape[-1])
    out = np.zeros_like(table)
    out[..., rows, columns] = table[..., rows, rows - columns]
    return out


def t5_bias(x, n):
    """Half of the buckets for keys behind the query; of a half, half exact and half logarithmic up to 128."""
    half, exact = n["n"] // 2, n["n"] // 4
    bias = np.zeros((n["h"], n["p"], n["m"]))
    for p in range(n["p"]):
        for m in range(n["m"]):
            d = abs(m - p)
            # d >= exact * (128 / exact)^(k / exact), in integers: (d / exact)^exact >= (128 / exact)^k
            steps = [k for k in range(1, half) if d**exact * exact**k >= exact**exact * 128**k]
            bucket = d if d < exact else min(exact + max(steps, default=0), half - 1)
            bias[:, p, m] = x["BIAS"][:, bucket + half * (m > p)]
    scores = np.einsum("bhep,bhem->bhpm", x["Q"], x["K"])
    return _attend(scores + bias, x["V"])


def _by_distance(table, n):
    """table[h, m - p + P - 1] as (h, 1, p, m), its diagonals filled one by one."""
    out = np.zeros((table.shape[0], n["p"], n["m"]))
    for r in range(table.shape[1]):
        k = r - n["p"] + 1
        out += table[:, r, None, None] * np.eye(n["p"], n["m"], k)
    return out[:, None]


def relative_bias(x, n):
    """A Toeplitz matrix for each head is added to the scores."""
    return _attend(_scores(x, n) + _by_distance(x["RB"], n), x["V"])


def urpe(x, n):
    """Toeplitz matrices are added to the scores, and multiply the weights."""
    weights = softmax(_scores(x, n) + _by_distance(x["RB"], n)) * _by_distance(x["C"], n)
    return np.einsum("...pm,...fm->...fp", weights, x["V"])


def shaw_relative(x, n):
    """Keys and values of every pair: the projected one and a vector of the clipped distance."""
    out = np.zeros_like(x["Q"])
    for p in range(n["p"]):
        where = np.clip(np.arange(n["m"]) - p, -n["c"], n["c"]) + n["c"]
        keys, values = x["K"] + x["AK"][where].T, x["V"] + x["AV"][where].T
        scores = np.einsum("bhe,bhem->bhm", x["Q"][..., p], keys) / np.sqrt(n["e"])
        out[..., p] = np.einsum("bhm,bhem->bhe", softmax(scores), values)
    return out


def relative_skew(x, n):
    """The memory saving of the paper: a column of zeros in front, read as rows one shorter, the first row dropped."""
    size = n["p"]
    products = np.einsum("hbep,her->hbpr", x["Q"], x["ER"])
    padded = np.concatenate([np.zeros((*products.shape[:-1], 1)), products], axis=-1)
    skewed = padded.reshape(*products.shape[:2], size + 1, size)[..., 1:, :]
    content = np.einsum("hbep,hbem->hbpm", x["Q"], x["K"])
    return _attend((content + skewed) / np.sqrt(n["e"]), x["V"], _lower(n))


def relative_skew_local(x, n):
    """Over the whole matrix: the vector of a pair is that of its distance, at most two blocks less one."""
    p, m = np.arange(n["p"])[:, None], np.arange(n["m"])
    mask = (m <= p) & (m // n["i"] >= p // n["i"] - 1)
    vectors = x["ER"][..., np.where(mask, n["r"] - 1 - (p - m), 0)]
    scores = np.einsum("hbep,hbem->hbpm", x["Q"], x["K"]) + np.einsum("hbep,hepm->hbpm", x["Q"], vectors)
    return _attend(scores / np.sqrt(n["e"]), x["V"], mask)


def transformer_xl(x, n):
    """Four terms: content and position against the query, and against a bias."""
    p, m = np.arange(n["p"])[:, None] + n["t"], np.arange(n["m"])
    vectors = x["ER"][..., np.maximum(p - m, 0)]
    a = np.einsum("hbep,hbem->hbpm", x["Q"], x["K"])
    b = np.einsum("hbep,hepm->hbpm", x["Q"], vectors)
    c = np.einsum("he,hbem->hbm", x["U"], x["K"])[..., None, :]
    d = np.einsum("he,hepm->hpm", x["W"], vectors)[:, None]
    return _attend((a + b + c + d) / np.sqrt(n["e"]), x["V"], m <= p)


def qk_norm(x, n):
    """Cosines times a factor; a vector of zeros is at right angles to all."""
    q, k = (x[t] / np.maximum(np.linalg.norm(x[t], axis=2, keepdims=True), 1e-12) for t in "QK")
    return _attend(x["G"] * np.einsum("bhep,bhem->bhpm", q, k), x["V"])


def _rms_norm(x, axis, gain, epsilon):
    shape = [-1 if d == axis % x.ndim else 1 for d in range(x.ndim)]
    return x / np.sqrt((x**2).mean(axis=axis, keepdims=True) + epsilon) * gain.reshape(shape)


def qk_rms_norm(x, n):
    """Queries and keys over their root mean square, times gains."""
    normal = {"Q": _rms_norm(x["Q"], 2, x["GQ"], 1e-6), "K": _rms_norm(x["K"], 2, x["GK"], 1e-6)}
    return _attend(_scores(normal, n), x["V"], _lower(n))


def illama(x, n):
    """Patches with the class token last; causal self-attention."""
    cls = np.broadcast_to(x["CLS"][:, None], (n["b"], n["d"], 1))
    tokens = np.concatenate([x["X"], cls], axis=-1)
    q, k, v = (np.einsum("hed,bdp->bhep", x[w], tokens) for w in ("WQ", "WK", "WV"))
    return causal({"Q": q, "K": k, "V": v}, n)


def soft_mask(x, n):
    """Weights after the softmax times 1 where causal and ALPHA elsewhere."""
    return np.einsum("bhpm,bhfm->bhfp", softmax(_scores(x, n)) * np.where(_lower(n), 1.0, x["ALPHA"]), x["V"])


def gpsa(x, n):
    """Pixels by row and column; position scores are linear in the offset and its squared length."""
    row, column = np.divmod(np.arange(n["p"]), n["x"])
    dx, dy = column[None, :] - column[:, None], row[None, :] - row[:, None]
    features = np.stack([dx, dy, dx**2 + dy**2])
    position = np.einsum("hj,jpm->hpm", x["WP"], features) + x["BP"][:, None, None]
    gate = (1 / (1 + np.exp(-x["LAM"])))[:, None, None]
    weights = (1 - gate) * softmax(_scores(x, n)) + gate * softmax(position)
    return np.einsum("bhpm,bhfm->bhfp", weights, x["V"])


def position_temperature(x, n):
    """Scores of the query at position p, counted from 1, times 1 + exp(-exp(beta)) ln p."""
    factor = 1 + np.outer(np.exp(-np.exp(x["BETA"])), np.log(np.arange(1, n["p"] + 1)))
    return _attend(_scores(x, n) * factor[:, None, :, None], x["V"], _lower(n))


def token_temperature(x, n):
    """Temperatures of queries and values from one vector for each head on the projections."""
    alpha = 1 / (1 + np.exp(-x["ALPHA"]))
    tq = 1 + np.tanh(np.einsum("he,hbep->hbp", x["WTQ"], x["Q"]))
    tq += alpha[:, None, None] * np.log(np.arange(1, n["p"] + 1))
    tv = 1 + np.tanh(np.einsum("hf,hbfm->hbm", x["WTV"], x["V"]))
    warm = {"Q": x["Q"] * tq[:, :, None], "K": x["K"]}
    return _attend(_scores(warm, n), x["V"] * tv[:, :, None], _lower(n))


def rcmha(x, n):
    """Causal convolutions of each channel, then content and position scores with their biases."""
    size, made = n["p"], {}
    for t in "QKV":
        padded = np.pad(x[f"{t}0"], [(0, 0)] * 3 + [(n["i"] - 1, 0)])
        taps = [padded[..., i : i + size] * x[f"C{t}"][:, None, :, i, None] for i in range(n["i"])]
        made[t] = np.sum(taps, axis=0)
    content = np.einsum("hbep,hbem->hbpm", made["Q"] + x["U"][:, None, :, None], made["K"])
    position = np.einsum("hbep,her->hbpr", made["Q"] + x["W"][:, None, :, None], x["ER"])
    return _attend((content + _shifted(position)) / np.sqrt(n["e"]), made["V"], _lower(n))


def l_query(x, n):
    """Position by position: the mean of what is left of the last items, normalised, asks all items so far."""
    out = np.zeros((n["b"], n["d"], n["p"]))
    for b in range(n["b"]):
        items, real = x["X"][b], x["KEEP"][b].astype(bool)
        for p in range(n["p"]):
            recent = [items[:, j] for j in range(max(0, p - n["l"] + 1), p + 1) if real[j]]
            mean = np.mean(recent, axis=0) if recent else np.zeros(n["d"])
            normal = (mean - mean.mean()) / np.sqrt(mean.var() + 1e-8) * x["GAIN"] + x["BIAS"]
            seen = items[:, : p + 1][:, real[: p + 1]]
            for h in range(n["h"]):
                scores = (x["WQ"][h] @ normal) @ (x["WK"][h] @ seen) / np.sqrt(n["e"])
                out[b, :, p] += x["WO"][h].T @ (x["WV"][h] @ seen @ softmax(scores))
            out[b, :, p] += normal
    return out


def two_towers(x, n):
    """Two of :func:`l_query`, one with single items as queries; scores of the items from both, weighted."""
    towers = []
    for number, recent in enumerate((1, n["l"])):
        own = {t: x[t][number] for t in ("GAIN", "BIAS", "WQ", "WK", "WV", "WO")}
        towers.append(l_query({"X": x["X"], "KEEP": x["KEEP"], **own}, {**n, "l": recent}))
    short, long = (np.einsum("nd,bdp->bnp", x["ITEM"], z) for z in towers)
    return x["ALPHA"] * short + (1 - x["ALPHA"]) * long


def ted(x, n):
    """Row by row, the sum of t ln(t / s)."""
    total = 0.0
    for counts, logits in zip(x["CO"], x["Y"], strict=True):
        teacher, student = softmax(counts / x["TAU"]), softmax(logits)
        total += (teacher * np.log(teacher / student)).sum()
    return total / n["b"]


def redistributed(x, n):
    """Row by row, on the weights: sinks keep 0.6 in selected heads, what they lose goes to other visual tokens."""
    weights = softmax(_scores(x, n), mask=_lower(n))
    for b, h, p in np.ndindex(n["b"], n["h"], n["p"]):
        row = weights[b, h, p]
        sink, visual = x["SINK"][b].astype(bool), x["VIS"][b].astype(bool)
        total = row[visual].sum()
        if total < 0.2 or row[visual & sink].sum() > 0.5 * total:
            continue
        others = visual & ~sink
        freed = 0.4 * row[sink].sum()
        row[sink] *= 0.6
        if row[others].sum() > 0:
            row[others] += freed * row[others] / row[others].sum()
    return np.einsum("bhpm,bhfm->bhfp", weights, x["V"])


def calibrated(x, n):
    """Column means over the queries that see the key; above 5 / N and not the first is a sink, and keeps 0.4."""
    weights = softmax(_scores(x, n), mask=_lower(n))
    for b, h in np.ndindex(n["b"], n["h"]):
        full = weights[b, h]
        sinks = np.array([m > 0 and full[m:, m].mean() > 5 / n["m"] for m in range(n["m"])], bool)
        for p in range(1, n["p"]):
            row = full[p]
            freed = 0.6 * row[sinks].sum()
            row[sinks] *= 0.4
            row[~sinks] += freed * row[~sinks] / row[~sinks].sum()
        full[0] = np.arange(n["m"]) == 0
    return np.einsum("bhpm,bhfm->bhfp", weights, x["V"])


def composite(x, n):
    """Causal attention over image and text together, of which only the rows of the text are used."""
    tokens = np.concatenate([x["XI"], x["XT"]], axis=-1)
    normal = _rms_norm(tokens, 1, x["GAIN"], 1e-5)
    q, k, v = (np.einsum("hed,bdm->bhem", x[w], normal) for w in ("WQ", "WK", "WV"))
    mask = np.tril(np.ones((n["m"], n["m"]), bool))
    attended = _attend(_scores({"Q": q, "K": k}, n), v, mask)
    i = n["i"]
    text = x["XT"] + np.einsum("hfd,bhfp->bdp", x["WO"], attended[..., i:])
    return {"ZI": x["XI"] + np.einsum("hfd,bhfi->bdi", x["WO"], v[..., :i]), "ZT": text}


def boosted(x, n):
    """Weights of chosen keys times 1 + a gain, rows divided by their sums."""
    gain = np.log1p(np.exp(x["GAIN"]))[:, :, None, None] * x["TOP"][:, None, None, :]
    weights = softmax(_scores(x, n), mask=_lower(n)) * (1 + gain)
    return np.einsum("bhpm,bhfm->bhfp", weights / weights.sum(axis=-1, keepdims=True), x["V"])


def repositioned(x, n):
    """Query by query: its keys gathered one after another, those of its subject's reference among them."""
    out = np.zeros((n["b"], n["h"], n["f"], n["p"]))
    for b in range(n["b"]):
        subject = x["SEG"][b].argmax(axis=0)
        for p in range(n["p"]):
            own = [m for m in range(n["m"]) if 0 in (subject[p], subject[m]) or subject[m] == subject[p]]
            keys, values = [x["K"][b][..., own]], [x["V"][b][..., own]]
            if (s := subject[p]) > 0:
                moved = [w for w in x["WARP"][b, s - 1] if x["REF"][b, s - 1, w]]
                keys.append(x["KR"][b, :, s - 1][..., moved])
                values.append(x["VR"][b, :, s - 1][..., moved])
            k, v = np.concatenate(keys, axis=-1), np.concatenate(values, axis=-1)
            weights = softmax(np.einsum("he,hem->hm", x["Q"][b, :, :, p], k) / np.sqrt(n["e"]))
            out[b, :, :, p] = np.einsum("hm,hfm->hf", weights, v)
    return out


def chosen_and_boosted(x, n):
    """Visual tokens with most weight from the last query, and the most salient ones, raised by the gain of the head."""
    weights = softmax(_scores(x, n), mask=_lower(n))
    for b in range(n["b"]):
        visual = np.flatnonzero(x["VIS"][b])
        drawn = weights[b, :, -1, visual].T  # an index beside a slice comes first
        local = visual[np.argsort(-drawn.mean(axis=0), kind="stable")[: n["s"]]]
        salient = visual[np.argsort(-x["MAP"][b, visual], kind="stable")[: n["j"]]]
        chosen = np.union1d(local, salient)
        weights[b][..., chosen] *= 1 + drawn.sum(axis=1)[:, None, None]
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("bhpm,bhfm->bhfp", weights, x["V"])
