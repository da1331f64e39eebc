"""Linear attention, retention, state spaces and delta rules, each in a form that no cascade of the same name uses.

``*_by_mask`` compare every pair of positions under a lower triangular matrix of decays; ``*_by_steps`` carry a state
from position to position; ``*_by_solving`` find all writes of a delta rule from one triangular system;
``*_by_products`` sum over every earlier position times the product of the transitions in between.
"""

from __future__ import annotations

import numpy as np


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _silu(x):
    return x * _sigmoid(x)


def _softplus(x):
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def _elu1(x):
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def _earlier(length):
    """[query, key]: whether the key is not later than the query."""
    return np.arange(length)[:, None] >= np.arange(length)[None, :]


def _pairwise(log_decay):
    """exp of the sum of what lies behind the key up to the query, [..., query, key], from [..., position]."""
    length = log_decay.shape[-1]
    total = np.zeros((*log_decay.shape, length))
    for p in range(length):
        for m in range(p + 1):
            total[..., p, m] = log_decay[..., m + 1 : p + 1].sum(axis=-1)
    return np.where(_earlier(length), np.exp(total), 0.0)


# Linear attention


def linear_attention(x, n):
    """Every query against every key through elu + 1; each row divided by its sum."""
    weights = np.einsum("bhep,bhem->bhpm", _elu1(x["Q"]), _elu1(x["K"]))
    return np.einsum("bhpm,bhfm->bhfp", weights / weights.sum(axis=-1, keepdims=True), x["V"])


def linear_attention_causal_by_mask(x, n):
    weights = np.einsum("bhep,bhem->bhpm", _elu1(x["Q"]), _elu1(x["K"])) * _earlier(n["i"])
    return np.einsum("bhpm,bhfm->bhfp", weights / weights.sum(axis=-1, keepdims=True), x["V"])


def linear_attention_causal_by_steps(x, n):
    q, k, v = _elu1(x["Q"]), _elu1(x["K"]), x["V"]
    state, norm = np.zeros((*k.shape[:3], v.shape[2])), np.zeros(k.shape[:3])
    out = np.zeros(v.shape[:3] + q.shape[3:])
    for t in range(q.shape[3]):
        state += k[..., t, None] * v[..., None, :, t]
        norm += k[..., t]
        out[..., t] = np.einsum("bhe,bhef->bhf", q[..., t], state) / (q[..., t] * norm).sum(-1, keepdims=True)
    return out


def linear_attention_sums_by_steps(x, n):
    q, k, v = x["Q"], x["K"], x["V"]
    state, out = np.zeros((*k.shape[:3], v.shape[2])), np.zeros(v.shape[:3] + q.shape[3:])
    for t in range(q.shape[3]):
        state += k[..., t, None] * v[..., None, :, t]
        out[..., t] = np.einsum("bhe,bhef->bhf", q[..., t], state)
    return out


# Retention


def _rotated(x):
    """Pairs of channels as complex numbers, turned by the position times 10000^(-2 j / E)."""
    pairs, length = x.shape[2] // 2, x.shape[3]
    angle = 10000.0 ** (-2 * np.arange(pairs) / x.shape[2])[:, None] * np.arange(length)
    turned = (x[:, :, 0::2] + 1j * x[:, :, 1::2]) * np.exp(1j * angle)
    out = np.empty(x.shape)
    out[:, :, 0::2], out[:, :, 1::2] = turned.real, turned.imag
    return out


def _normed_and_gated(r, gate):
    centred = r - r.mean(axis=2, keepdims=True)
    return _silu(gate) * centred / np.sqrt((centred**2).mean(axis=2, keepdims=True) + 1e-5)


def _gamma(heads):
    return 1 - 2.0 ** (-5 - np.arange(heads))


def retention_by_mask(x, n):
    """Complex scores by the distance of two positions, weighted by gamma to the power of the distance."""
    q, k = (x[t][:, :, 0::2] + 1j * x[t][:, :, 1::2] for t in "QK")
    distance = np.arange(n["i"])[:, None] - np.arange(n["i"])[None, :]
    angle = 10000.0 ** (-2 * np.arange(n["e"] // 2) / n["e"])
    turn = np.exp(1j * angle[:, None, None] * distance)
    scores = np.einsum("bhep,bhem,epm->bhpm", q, k.conj(), turn).real / np.sqrt(n["e"])
    decay = _gamma(n["h"])[:, None, None] ** np.maximum(distance, 0) * (distance >= 0)
    return _normed_and_gated(np.einsum("bhpm,bhfm->bhfp", scores * decay, x["V"]), x["G"])


def retention_by_steps(x, n):
    q, k, v = _rotated(x["Q"]), _rotated(x["K"]), x["V"]
    gamma = _gamma(n["h"])[None, :, None, None]
    state, out = np.zeros((*k.shape[:3], v.shape[2])), np.zeros(v.shape)
    for t in range(v.shape[3]):
        state = gamma * state + k[..., t, None] * v[..., None, :, t]
        out[..., t] = np.einsum("bhe,bhef->bhf", q[..., t], state) / np.sqrt(n["e"])
    return _normed_and_gated(out, x["G"])


# Gates that depend on the data


def gla_by_mask(x, n):
    decay = _pairwise(np.log(_sigmoid(x["G"])) / 16)
    scores = np.einsum("bhep,bhem,bhepm->bhpm", x["Q"], x["K"], decay)
    return np.einsum("bhpm,bhfm->bhfp", scores, x["V"])


def gla_by_steps(x, n):
    keep = _sigmoid(x["G"]) ** (1 / 16)
    state, out = np.zeros((n["b"], n["h"], n["e"], n["f"])), np.zeros(x["V"].shape)
    for t in range(n["i"]):
        state = keep[..., t, None] * state + x["K"][..., t, None] * x["V"][..., None, :, t]
        out[..., t] = np.einsum("bhe,bhef->bhf", x["Q"][..., t], state)
    return out


def _ssd_parts(x, n):
    """Convolved x, B, C, step sizes and logarithms of decays."""

    def convolved(signal, weights):
        out = np.zeros(signal.shape)
        width = weights.shape[-1]
        for t in range(signal.shape[-1]):
            for lag in range(min(width, t + 1)):
                out[..., t] += weights[..., width - 1 - lag] * signal[..., t - lag]
        return _silu(out)

    parts = [convolved(x[t], x[w]) for t, w in (("X", "WX"), ("Bi", "WB"), ("Ci", "WC"))]
    step = _softplus(x["T"] + x["TB"][..., None])
    return *parts, step, -step * np.exp(x["AL"])[..., None]


def _ssd_output(y, x, value):
    y = (y + x["D"][..., None, None] * value) * _silu(x["Z"])
    return y / np.sqrt((y**2).mean(axis=(2, 3), keepdims=True) + 1e-5) * x["WN"][..., None]


def ssd_by_mask(x, n):
    value, key, query, step, log_decay = _ssd_parts(x, n)
    scores = np.einsum("bgep,bgem->bgpm", query, key)[:, :, None] * _pairwise(log_decay)
    return _ssd_output(np.einsum("bgrpm,bgrm,bgrfm->bgrfp", scores, step, value), x, value)


def ssd_by_steps(x, n):
    value, key, query, step, log_decay = _ssd_parts(x, n)
    state, y = np.zeros((n["b"], n["g"], n["r"], n["e"], n["f"])), np.zeros(value.shape)
    for t in range(value.shape[-1]):
        write = step[..., t, None, None] * key[:, :, None, :, None, t] * value[:, :, :, None, :, t]
        state = np.exp(log_decay[..., t])[..., None, None] * state + write
        y[..., t] = np.einsum("bge,bgref->bgrf", query[..., t], state)
    return _ssd_output(y, x, value)


# Delta rules


def _unit(x):
    x = _silu(x)
    return x / np.sqrt((x**2).sum(axis=2, keepdims=True) + 1e-6)


def _delta_by_solving(x, log_decay):
    """All writes u from (1 + beta tril(K K^T * decay, -1)) u = beta v, decays by channel [b, h, e, position]."""
    q, k, beta = _unit(x["Q"]), _unit(x["K"]), _sigmoid(x["BL"])
    decay = _pairwise(log_decay)
    length = beta.shape[-1]
    lower = beta[..., None] * np.einsum("bhep,bhem,bhepm->bhpm", k, k, decay) * ~np.eye(length, dtype=bool)
    writes = np.linalg.solve(np.eye(length) + lower, beta[..., None] * x["V"].swapaxes(2, 3))
    return np.einsum("bhep,bhem,bhepm,bhmf->bhfp", q, k, decay, writes)


def _delta_by_steps(x, log_decay):
    """State' = (1 - beta k k^T) diag(decay) state + beta k v^T."""
    q, k, beta, v = _unit(x["Q"]), _unit(x["K"]), _sigmoid(x["BL"]), x["V"]
    state, out = np.zeros((*k.shape[:3], v.shape[2])), np.zeros(v.shape)
    for t in range(v.shape[3]):
        key, b = k[..., t], beta[..., t, None, None]
        reflect = np.eye(k.shape[2]) - b * key[..., :, None] * key[..., None, :]
        state = reflect @ (np.exp(log_decay[..., t])[..., None] * state) + b * key[..., None] * v[..., None, :, t]
        out[..., t] = np.einsum("bhe,bhef->bhf", q[..., t], state)
    return out


def _no_decay(x):
    return np.zeros(x["K"].shape)


def _head_decay(x):
    rate = -np.exp(x["AL"])[..., None] * _softplus(x["T"] + x["TB"][..., None])
    return np.broadcast_to(rate[:, :, None], x["K"].shape)


def _channel_decay(x):
    return -np.exp(x["AL"])[..., None, None] * _softplus(x["T"] + x["TB"][..., None])


def deltanet_by_solving(x, n):
    return _delta_by_solving(x, _no_decay(x))


def deltanet_by_steps(x, n):
    return _delta_by_steps(x, _no_decay(x))


def gated_deltanet_by_solving(x, n):
    return _delta_by_solving(x, _head_decay(x))


def gated_deltanet_by_steps(x, n):
    return _delta_by_steps(x, _head_decay(x))


def kda_by_solving(x, n):
    return _delta_by_solving(x, _channel_decay(x)) / np.sqrt(n["e"])


def kda_by_steps(x, n):
    return _delta_by_steps(x, _channel_decay(x)) / np.sqrt(n["e"])


# Lightning attention and TransNormerLLM


def _lambda(n):
    """The decay of each head in layer ``l`` of ``n``, counted from 1."""
    slopes = 2.0 ** (-8 * (np.arange(n["h"]) + 1) / n["h"])
    return np.exp(-slopes * (1 - (n["l"] - 1) / (n["n"] - 1) + 1e-5))


def _powers(decay, length):
    """decay^(p - m) where m <= p, [head, p, m]."""
    distance = np.arange(length)[:, None] - np.arange(length)[None, :]
    return decay[:, None, None] ** np.maximum(distance, 0) * (distance >= 0)


def lightning_by_mask(x, n):
    scores = np.einsum("bhep,bhem->bhpm", x["Q"], x["K"]) * _powers(_lambda(n), x["Q"].shape[3])
    return np.einsum("bhpm,bhfm->bhfp", scores, x["V"])


def lightning_by_steps(x, n):
    q, k, v = x["Q"], x["K"], x["V"]
    decay = _lambda(n)[None, :, None, None]
    state, out = np.zeros((*k.shape[:3], v.shape[2])), np.zeros(v.shape)
    for t in range(v.shape[3]):
        state = decay * state + k[..., t, None] * v[..., None, :, t]
        out[..., t] = np.einsum("bhe,bhef->bhf", q[..., t], state)
    return out


def _transnormer_output(r, x):
    return x["U"] * r / np.sqrt((r**2).mean(axis=(1, 2), keepdims=True) + 1e-6)


def transnormer_by_mask(x, n):
    """Scores turned by the learned angle times the distance of two positions."""
    length = x["Q"].shape[3]
    distance = np.arange(length)[:, None] - np.arange(length)[None, :]
    turn = np.cos(x["TH"][..., None, None] * distance)
    scores = np.einsum("bhep,bhem,hepm->bhpm", _silu(x["Q"]), _silu(x["K"]), turn)
    return _transnormer_output(np.einsum("bhpm,bhfm->bhfp", scores * _powers(_lambda(n), length), x["V"]), x)


def transnormer_by_steps(x, n):
    """A complex state; the real part of what a query reads from it."""
    turn = np.exp(1j * x["TH"][..., None] * np.arange(x["Q"].shape[3]))
    q, k, v = _silu(x["Q"]) * turn, _silu(x["K"]) * turn, x["V"]
    decay = _lambda(n)[None, :, None, None]
    state, out = np.zeros((*k.shape[:3], v.shape[2]), complex), np.zeros(v.shape)
    for t in range(v.shape[3]):
        state = decay * state + k.conj()[..., t, None] * v[..., None, :, t]
        out[..., t] = np.einsum("bhe,bhef->bhf", q[..., t], state).real
    return _transnormer_output(out, x)


def tnl_layer(x, n):
    """Position by position, all pairs compared; the heads joined, normalised, gated and projected."""
    q, k, v = (_silu(np.einsum("hed,bdi->bhei", x[w], x["X"])) for w in ("WQ", "WK", "WV"))
    scores = np.einsum("bhep,bhem->bhpm", q, k) * _powers(_lambda(n), n["i"])
    heads = np.einsum("bhpm,bhfm->bphf", scores, v).reshape(n["b"], n["i"], -1)
    centred = heads - heads.mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    gate = _sigmoid(np.swapaxes(x["X"], 1, 2) @ x["WG1"].T @ x["WG2"].reshape(-1, n["r"]).T)
    out = (normal * x["GAIN"].ravel() + x["BIAS"].ravel()) * gate @ x["WO"].reshape(-1, n["c"])
    return np.swapaxes(out, 1, 2)


def sglu(x, n):
    """Token by token."""
    out = np.zeros((n["b"], n["c"], n["i"]))
    for b, i in np.ndindex(n["b"], n["i"]):
        token = x["X"][b, :, i]
        out[b, :, i] = x["WO"] @ ((x["WV"] @ token) * (x["WU"] @ token))
    return out


# In-context regression
# In-context regression


def icl_linear_attention(x, n):
    """Attention of the last token, its label 0, over all pairs without softmax; the row of the label."""
    out = np.zeros(n["b"])
    for b in range(n["b"]):
        tokens = np.vstack([x["X"][b], x["Y"][b][None]])
        query = np.append(x["XQ"][b], 0.0)
        scores = tokens.T @ x["WKQ"] @ query
        out[b] = (x["WPV"] @ tokens) @ scores
    return out


def icl_gd_step(x, n):
    """The gradient of half the squared error at w = 0 is minus the sum of y_n x_n."""
    out = np.zeros(n["b"])
    for b in range(n["b"]):
        gradient = np.zeros(n["d"])
        for t in range(n["n"]):
            gradient += (0.0 - x["Y"][b, t]) * x["X"][b, :, t]
        out[b] = -x["ETA"] * gradient @ (x["PC"] @ x["XQ"][b])
    return out


# Linear systems that change with the position


def _by_products(transition, write, read):
    """Output [b, d, t] from transition and write [b, n, d, t] and read [b, n, t]."""
    out = np.zeros((write.shape[0], *write.shape[2:]))
    for t in range(write.shape[-1]):
        for s in range(t + 1):
            reached = transition[..., s + 1 : t + 1].prod(axis=-1) * write[..., s]
            out[..., t] += np.einsum("bn,bnd->bd", read[..., t], reached)
    return out


def dsf_by_products(x, n):
    write = x["Bi"][:, :, None] * x["U"][:, None]
    return _by_products(x["LAM"], write, x["Ci"]) + x["Di"] * x["U"]


def dsf_linear_attention(x, n):
    return linear_attention_causal_by_mask(x, n)


def s6_by_products(x, n):
    step = _softplus(x["T"])[:, None]
    write = x["Bi"][:, :, None] * step * x["U"][:, None]
    transition = np.exp(-step * np.exp(x["AL"])[..., None])
    return _by_products(transition, write, x["Ci"]) + x["Di"][..., None] * x["U"]


def rg_lru_by_products(x, n):
    transition = _sigmoid(x["AL"])[..., None] ** (8 * _sigmoid(x["GR"]))
    write = np.sqrt(1 - transition**2) * _sigmoid(x["GI"]) * x["U"]
    return _by_products(transition[:, None], write[:, None], np.ones((n["b"], 1, n["i"])))


def softmax_of_scalars(x, n):
    """Causal softmax attention whose scores are products of two numbers."""
    scores = np.where(_earlier(n["i"]), x["Q"][..., :, None] * x["K"][..., None, :], -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("bhpm,bhfm->bhfp", weights / weights.sum(axis=-1, keepdims=True), x["V"])


def quasi_lstm_by_products(x, n):
    forget, write, read = (
        _sigmoid(np.einsum("dc,bci->bdi", x[w], x["U"]) + x[c][:, None])
        for w, c in (("WF", "BF"), ("WI", "BI"), ("WO", "BO"))
    )
    write = write * np.tanh(np.einsum("dc,bci->bdi", x["WZ"], x["U"]) + x["BZ"][:, None])
    return read * _by_products(forget[:, None], write[:, None], np.ones((n["b"], 1, n["i"])))


def _s4d_parts(x):
    """Discrete transition and output weights of every complex mode, by zero-order hold."""
    rate = -np.exp(x["AR"]) + 1j * x["AI"]
    transition = np.exp(np.exp(x["LD"]) * rate)
    return transition, (x["CR"] + 1j * x["CI"]) * (transition - 1) / rate


def s4d_by_steps(x, n):
    transition, weights = _s4d_parts(x)
    state, out = np.zeros((n["b"], n["n"], n["d"]), complex), np.zeros(x["U"].shape)
    for t in range(n["p"]):
        state = transition * state + x["U"][:, None, :, t]
        out[..., t] = 2 * (weights * state).sum(axis=1).real
    return out + x["DS"][:, None] * x["U"]


def s4d_by_convolution(x, n):
    transition, weights = _s4d_parts(x)
    response = np.stack([2 * (weights * transition**lag).sum(axis=0).real for lag in range(n["p"])], axis=-1)
    out = [[np.convolve(u, k)[: n["p"]] for u, k in zip(row, response, strict=True)] for row in x["U"]]
    return np.array(out) + x["DS"][:, None] * x["U"]


# Extractors


def _adjusted(extracted, x):
    return extracted * (np.einsum("dc,bcp->bdp", x["WA"], x["X"]) + x["BA"][:, None])


def _convolved(weights, x):
    """Sum over lags of weights [d, c, lag] times what came that much earlier."""
    signal, out = x["X"], np.zeros((x["X"].shape[0], *weights.shape[:1], x["X"].shape[2]))
    for t in range(signal.shape[2]):
        for lag in range(t + 1):
            out[..., t] += signal[..., t - lag] @ weights[..., lag].T
    return _adjusted(out, x)


def extractor_she(x, n):
    return _convolved(x["W"], x)


def extractor_he(x, n):
    return _convolved(np.eye(n["d"])[..., None] * x["W"][:, None], x)


def extractor_we(x, n):
    return _convolved(np.eye(n["d"])[..., None] * x["W"], x)


def extractor_me(x, n):
    return _adjusted(np.cumsum(x["X"], axis=2) / np.arange(1, n["p"] + 1), x)
