"""Attention in windows, neighborhoods and grids; every query gathers its keys, or masks a full matrix."""

from __future__ import annotations

import math

import numpy as np

from . import softmax


def _per_pixel(q, k, v, keys, bias=None):
    """Attention of every pixel of ``q`` [..., e, y, x] to the pixels ``keys(y, x)``, a list of (row, column).

    ``bias(y, x, row, column)`` is added to a score; it may be an array over the leading axes.
    """
    out = np.zeros((*q.shape[:-3], v.shape[-3], *q.shape[-2:]))
    for y in range(q.shape[-2]):
        for x in range(q.shape[-1]):
            at = keys(y, x)
            if not at:
                continue
            rows, columns = (np.array(a) for a in zip(*at, strict=True))
            scores = np.einsum("...e,...em->...m", q[..., y, x], k[..., rows, columns]) / np.sqrt(q.shape[-3])
            if bias is not None:
                scores = scores + np.stack([bias(y, x, r, c) for r, c in at], axis=-1)
            out[..., y, x] = np.einsum("...m,...fm->...f", softmax(scores), v[..., rows, columns])
    return out


def _masked(q, k, v, mask):
    """Attention over a full matrix with a mask [p, m]; scores over sqrt(E)."""
    scores = np.einsum("...ep,...em->...pm", q, k) / np.sqrt(q.shape[-2])
    return np.einsum("...pm,...fm->...fp", softmax(scores, mask=np.broadcast_to(mask, scores.shape)), v)


def _table(rpb, wy, wx):
    """A bias for relative positions from a table [h, 2 wy - 1, 2 wx - 1] (the batch axis is added)."""
    return lambda y, x, r, c: rpb[:, None, r - y + wy - 1, c - x + wx - 1]


def _box(rows, columns):
    return [(r, c) for r in rows for c in columns]


# Tiles


def swin(x, n):
    """Whole tiles cut out one by one."""
    height, width = n["y"], n["x"]
    out = np.zeros((*x["V"].shape[:3], height, width))
    for top in range(0, height, n["wy"]):
        for left in range(0, width, n["wx"]):
            part = np.s_[..., top : top + n["wy"], left : left + n["wx"]]
            q, k, v = (x[name][part] for name in "QKV")
            inside = _box(range(q.shape[-2]), range(q.shape[-1]))
            scores = np.einsum("hbeyx,hbeuv->hbyxuv", q, k) / np.sqrt(n["e"])
            for r, c in inside:
                for u, w in inside:
                    scores[:, :, r, c, u, w] += x["RPB"][:, u - r + n["wy"] - 1, w - c + n["wx"] - 1][:, None]
            flat = softmax(scores.reshape(*scores.shape[:4], -1)).reshape(scores.shape)
            out[part] = np.einsum("hbyxuv,hbfuv->hbfyx", flat, v)
    return out


def swin_shifted(x, n):
    """The image padded to whole tiles, rolled by half a tile, masked by region, and rolled back."""
    (height, wy), (width, wx) = (n["y"], n["wy"]), (n["x"], n["wx"])
    full = [-(-height // wy) * wy, -(-width // wx) * wx]
    shift = [wy // 2, wx // 2]
    real = np.zeros(full, dtype=bool)
    real[:height, :width] = True

    def rolled(a):
        padded = np.zeros((*a.shape[:-2], *full))
        padded[..., :height, :width] = a
        return np.roll(padded, (-shift[0], -shift[1]), axis=(-2, -1))

    q, k, v = (rolled(x[name]) for name in "QKV")
    real = np.roll(real, (-shift[0], -shift[1]), axis=(0, 1))
    region = np.zeros(full, dtype=int)
    for number, cut in enumerate(_box(*([slice(0, f - w), slice(f - w, f - s), slice(f - s, f)] for f, w, s in
                                        zip(full, (wy, wx), shift, strict=True)))):  # fmt: skip
        region[cut] = number

    def keys(r, c):
        box = _box(range(r // wy * wy, (r // wy + 1) * wy), range(c // wx * wx, (c // wx + 1) * wx))
        return [at for at in box if region[at] == region[r, c] and real[at]]

    out = _per_pixel(q, k, v, keys, _table(x["RPB"], wy, wx))
    return np.roll(out, shift, axis=(-2, -1))[..., :height, :width]


gcvit_local = swin


def gcvit_global(x, n):
    """The queries repeated over all windows, then attention inside windows."""
    repeat = [1, 1, 1, -(-n["y"] // n["wy"]), -(-n["x"] // n["wx"])]
    return swin({**x, "Q": np.tile(x["QG"], repeat)[..., : n["y"], : n["x"]]}, n)


def axwin(x, n):
    """Each head with the keys of its tile, its horizontal or its vertical stripe."""
    height, width, w, s = n["y"], n["x"], n["wx"], n["s"]

    def cut(at, size, most):
        return range(at // size * size, min(at // size * size + size, most))

    shapes = {
        "hl": lambda y, c: _box(cut(y, w, height), cut(c, w, width)),
        "hr": lambda y, c: _box(cut(y, s, height), range(width)),
        "hc": lambda y, c: _box(range(height), cut(c, s, width)),
    }
    parts, start = [], 0
    for rank, keys in shapes.items():
        part = np.s_[:, start : start + n[rank]]
        parts.append(_per_pixel(x["Q"][part], x["K"][part], x["V"][part], keys))
        start += n[rank]
    return np.concatenate(parts, axis=1)


def halonet(x, n):
    """Keys of the block grown by the halo on each side, as far as there are any."""
    t, halo = n["t"], (n["i"] - n["t"]) // 2

    def keys(y, c):
        top, left = y // t * t, c // t * t
        return _box(range(max(top - halo, 0), min(top + t + halo, n["y"])),
                    range(max(left - halo, 0), min(left + t + halo, n["x"])))  # fmt: skip

    def bias(y, c, row, column):
        offsets = x["RH"][:, :, row - y + halo + t - 1] + x["RW"][:, :, column - c + halo + t - 1]
        return np.einsum("hbe,he->hb", x["Q"][..., y, c], offsets)

    return _per_pixel(x["Q"], x["K"], x["V"], keys, bias)


# Sequences


def sliding_window_causal(x, n):
    """A full matrix; keys not later, fewer than w dilated steps back, at multiples of the dilation."""
    back = np.arange(n["p"])[:, None] - np.arange(n["m"])
    return _masked(x["Q"], x["K"], x["V"], (back >= 0) & (back < n["dil"] * n["w"]) & (back % n["dil"] == 0))


def block_local(x, n):
    """A full matrix; keys not later and in the same block."""
    p, m = np.arange(n["p"])[:, None], np.arange(n["m"])
    return _masked(x["Q"], x["K"], x["V"], (m <= p) & (m // n["w"] == p // n["w"]))


def longformer(x, n):
    """A full matrix for the local queries and another for the global ones."""
    p, m = np.arange(n["p"])[:, None], np.arange(n["m"])
    out = _masked(x["Q"], x["K"], x["V"], (abs(p - m) <= n["w"] // 2) | (m < n["g"]))
    out[..., : n["g"]] = _masked(x["QG"], x["KG"], x["VG"], True)
    return out


def sink_logit(x, n):
    """One more column of scores, whose weight is dropped."""
    p, m = np.arange(n["p"])[:, None], np.arange(n["m"])
    scores = np.einsum("hbep,hbem->hbpm", x["Q"], x["K"]) / np.sqrt(n["e"])
    scores = np.where((m <= p) & (m > p - n["w"]), scores, -np.inf)
    column = np.broadcast_to(x["SINK"][:, None, None, None], (*scores.shape[:3], 1))
    weights = softmax(np.concatenate([scores, column], axis=-1))[..., :-1]
    return np.einsum("hbpm,hbfm->hbfp", weights, x["V"])


def _rotate(a, position):
    """Rotary positions for an array [..., 2, d, t], the two halves being the real and imaginary parts."""
    angle = np.power(10000.0, -np.arange(a.shape[-2]) / a.shape[-2])[:, None] * np.asarray(position)
    turned = (a[..., 0, :, :] + 1j * a[..., 1, :, :]) * np.exp(1j * angle)
    return np.concatenate([turned.real, turned.imag], axis=-2)


def swa_sinks(x, n):
    """A cache of the first and the latest tokens, whose positions are counted anew at every step."""
    out = np.zeros((*x["V"].shape[:-1], n["p"]))
    cache = []
    for p in range(n["p"]):
        cache.append(p)
        if len(cache) > n["s"] + n["w"]:
            del cache[n["s"]]
        keys = _rotate(x["K"][..., cache], np.arange(len(cache)))
        query = _rotate(x["Q"][..., [p]], len(cache) - 1)
        out[..., p] = _masked(query, keys, x["V"][..., cache], True)[..., 0]
    return out


# Neighborhoods


def _start(p, size, window):
    """The first key of a window of a size with ``p`` in the middle, moved inside."""
    return max(min(p - window // 2, size - window), 0)


def _neighbors(p, size, window, dilation=1):
    """Keys of the neighborhood of ``p`` among the positions with its remainder."""
    same = list(range(p % dilation, size, dilation))
    start = _start(p // dilation, len(same), window)
    return same[start : start + window]


def neighborhood_1d(x, n):
    return dilated_neighborhood_1d(x, {**n, "dil": 1})


def dilated_neighborhood_1d(x, n):
    mask = np.zeros((n["p"], n["m"]), dtype=bool)
    for p in range(n["p"]):
        mask[p, _neighbors(p, n["p"], n["w"], n["dil"])] = True
    return _masked(x["Q"], x["K"], x["V"], mask)


def neighborhood_causal_1d(x, n):
    """The window of each group of t positions of a remainder ends with the last of them; later keys are left out."""
    mask = np.zeros((n["p"], n["m"]), dtype=bool)
    for c in range(n["dil"]):
        same = list(range(c, n["p"], n["dil"]))
        for first in range(0, len(same), n["t"]):
            group = same[first : first + n["t"]]
            last = first + n["t"] if first + n["t"] < len(same) else len(same)
            window = same[max(last - n["w"], 0) : last]
            for p in group:
                mask[p, [m for m in window if m <= p]] = True
    return _masked(x["Q"], x["K"], x["V"], mask)


def neighborhood_strided_1d(x, n):
    """All of a group of t positions of a remainder have the neighborhood of the one in its middle."""
    mask = np.zeros((n["p"], n["m"]), dtype=bool)
    for c in range(n["dil"]):
        same = list(range(c, n["p"], n["dil"]))
        for first in range(0, len(same), n["t"]):
            middle = same[min(first + n["t"] // 2, len(same) - 1)]
            for p in same[first : first + n["t"]]:
                mask[p, _neighbors(middle, n["p"], n["w"], n["dil"])] = True
    return _masked(x["Q"], x["K"], x["V"], mask)


def neighborhood(x, n):
    return _per_pixel(x["Q"], x["K"], x["V"], lambda y, c: _box(
        _neighbors(y, n["y"], n["wy"]), _neighbors(c, n["x"], n["wx"])
    ))  # fmt: skip


def neighborhood_biased(x, n):
    return dilated_neighborhood(x, {**n, "dil": 1})


def dilated_neighborhood(x, n):
    d, table = n["dil"], _table(x["RPB"], n["wy"], n["wx"])
    return _per_pixel(
        x["Q"], x["K"], x["V"],
        lambda y, c: _box(_neighbors(y, n["y"], n["wy"], d), _neighbors(c, n["x"], n["wx"], d)),
        lambda y, c, row, column: table(y // d, c // d, row // d, column // d),
    )  # fmt: skip


def neighborhood_strided(x, n):
    t = n["t"]

    def along(p, size, window):
        leader = min(p // t * t + t // 2, size - 1)
        return _neighbors(leader, size, window)

    return _per_pixel(x["Q"], x["K"], x["V"], lambda y, c: _box(
        along(y, n["y"], n["wy"]), along(c, n["x"], n["wx"])
    ))  # fmt: skip


# Grids


def _filtered(a, kernel):
    """A 3x3 depthwise filter of an array [..., c, y, x] by a kernel [..., c, 3, 3], with zeros around."""
    padded = np.pad(a, [(0, 0)] * (a.ndim - 2) + [(1, 1), (1, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(-2, -1))
    return np.einsum("...yxij,...ij->...yx", windows, kernel)


def long_range_grouping(x, n):
    """The pixels of each group taken out with strides, attended to and put back; and the filtered values."""
    out = np.zeros_like(x["V"])
    for r in range(n["sy"]):
        for s in range(n["sx"]):
            part = np.s_[..., r :: n["sy"], s :: n["sx"]]
            q, k, v = (x[name][part] for name in "QKV")
            if 0 in q.shape:
                continue
            flat = [a.reshape(*a.shape[:3], -1) for a in (q, k, v)]
            out[part] = _masked(*flat, True).reshape(v.shape)
    return out + _filtered(x["V"], x["WD"][:, None, :, None])


def _gelu(a):
    return a * 0.5 * (1 + np.vectorize(math.erf)(a / math.sqrt(2)))


def _sigmoid(a):
    return 1 / (1 + np.exp(-a))


def _norm(a, gain, shift, axis, small):
    a = a - a.mean(axis=axis, keepdims=True)
    a = a / np.sqrt((a**2).mean(axis=axis, keepdims=True) + small)
    shape = [1] * a.ndim
    shape[axis] = -1
    return a * gain.reshape(shape) + shift.reshape(shape)


def gcvit_query_generator(x, n):
    image = x["IN"]
    gated = _gelu(_filtered(image, x["WD"]))
    gate = _sigmoid(_gelu(gated.mean(axis=(2, 3)) @ x["WS"].T) @ x["WG"].T)
    image = image + np.einsum("dc,bcyx->bdyx", x["WP"], gated * gate[:, :, None, None])
    padded = np.pad(image, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2].max(axis=(-2, -1))


def group_pose(x, n):
    """Two ordinary multi-head attentions, along keypoints and along instances, each with residual and norm."""

    def attend(tokens, position, wq, wk, wv, wo):
        """Over the second last axis of ``tokens`` [..., t, d]."""
        q = np.einsum("hed,...td->...het", wq, tokens + position)
        k = np.einsum("hed,...td->...het", wk, tokens + position)
        v = np.einsum("hfd,...td->...hft", wv, tokens)
        return np.einsum("dhf,...hft->...td", wo, _masked(q, k, v, True))

    tokens, position = x["X"], x["PE"]
    tokens = tokens + attend(tokens, position, x["WQ"], x["WK"], x["WV"], x["WO"])
    tokens = _norm(tokens, x["LG"], x["LB"], 3, 1e-5)
    across = [a.swapaxes(1, 2) for a in (tokens, position)]
    tokens = tokens + attend(*across, x["UQ"], x["UK"], x["UV"], x["UO"]).swapaxes(1, 2)
    return _norm(tokens, x["MG"], x["MB"], 3, 1e-5)


def outlook(x, n):
    """Unfold with zeros around, weights from the pooled image, and fold by adding."""
    height, width, s, t = n["y"], n["x"], n["s"], n["t"]
    image = x["IN"]
    values = np.einsum("hfc,bcyx->bhfyx", x["WV"], image)
    margin = t // 2
    reach = [s * n["ay"] + t, s * n["ax"] + t]
    padded = np.zeros((*values.shape[:3], *reach))
    padded[..., margin : margin + height, margin : margin + width] = values
    folded = np.zeros_like(padded)
    for a in range(n["ay"]):
        for c in range(n["ax"]):
            centre = image[:, :, s * a : s * a + s, s * c : s * c + s].mean(axis=(2, 3))
            logits = (np.einsum("hijc,bc->bhij", x["WA"], centre) + x["BA"]) / np.sqrt(n["f"])
            window = np.s_[..., s * a : s * a + t, s * c : s * c + t]
            made = np.einsum("bhij,bhfj->bhfi", softmax(logits), padded[window].reshape(*values.shape[:3], -1))
            folded[window] += made.reshape(*values.shape[:3], t, t)
    folded = folded[..., margin : margin + height, margin : margin + width]
    return np.einsum("dhf,bhfyx->bdyx", x["WP"], folded) + x["BP"][:, None, None]


def _convolved(x, n, masked):
    """Windows of images padded with zeros; the padding is masked, or scores 0 against every query."""
    margin = [n["dil"] * (n["ky"] // 2), n["dil"] * (n["kx"] // 2)]
    k, v, real = (
        np.pad(a, [(0, 0)] * (a.ndim - 2) + [(m, m) for m in margin])
        for a in (x["K"], x["V"], np.ones((n["y"], n["x"])))
    )
    out = np.zeros((*v.shape[:-2], n["y"], n["x"]))
    for y in range(n["y"]):
        for c in range(n["x"]):
            box = np.s_[..., y : y + n["dil"] * n["ky"] : n["dil"], c : c + n["dil"] * n["kx"] : n["dil"]]
            key, value = (a[box].reshape(*a.shape[:-2], -1) for a in (k, v))
            mask = real[box].reshape(-1) > 0 if masked else True
            out[..., y, c] = _masked(x["Q"][..., y, [c]], key, value, mask)[..., 0]
    return out


def msa_conv(x, n):
    return _convolved(x, n, masked=False)


def msa_conv_masked(x, n):
    return _convolved(x, n, masked=True)


def msa_conv_shifted(x, n):
    """Quarters of the image's channels rolled, then projected; windows as in a convolution that pads with zeros."""
    up, left = n["ky"] // 2, n["kx"] // 2
    rolls = [(-up, 0), (up, 0), (0, -left), (0, left)]
    image = np.stack([np.roll(x["IN"][:, u], rolls[u], axis=(-2, -1)) for u in range(4)], axis=1)
    q, k, v = (np.einsum("heuc,bucyx->bheyx", x[w], image) for w in ("WQ", "WK", "WV"))
    return _convolved({"Q": q, "K": k, "V": v}, {**n, "dil": 1}, masked=False)


def msa_conv_pooled(x, n):
    """Pixel by pixel: the keys of the window that are in the image, and after them the means of cells."""
    s, e = n["s"], n["e"]
    cells = [np.s_[..., top : top + s, left : left + s] for top in range(0, n["y"], s) for left in range(0, n["x"], s)]
    pooled = {t: np.stack([x[t][cell].mean(axis=(-2, -1)) for cell in cells], axis=-1) for t in "KV"}
    out = np.zeros((*x["V"].shape[:-2], n["y"], n["x"]))
    for y in range(n["y"]):
        for c in range(n["x"]):
            rows = slice(max(y - n["ky"] // 2, 0), y + n["ky"] // 2 + 1)
            columns = slice(max(c - n["kx"] // 2, 0), c + n["kx"] // 2 + 1)
            k, v = (
                np.concatenate([x[t][..., rows, columns].reshape(*x[t].shape[:-2], -1), pooled[t]], axis=-1)
                for t in "KV"
            )
            weights = softmax(np.einsum("bhe,bhem->bhm", x["Q"][..., y, c], k) / np.sqrt(e))
            out[..., y, c] = np.einsum("bhm,bhfm->bhf", weights, v)
    return out


def moat_strided(x, n):
    """As :func:`moat`, the filter and a mean of 2 x 2 pixels taken at every second row and column (padding `same`)."""
    image, s = x["IN"], n["s"]

    def scaled(a, gain, shift):
        return a * gain[:, None, None] + shift[:, None, None]

    hidden = np.einsum("rc,bcyx->bryx", x["W1"], scaled(image, x["BG0"], x["BB0"]))
    hidden = _gelu(scaled(hidden, x["BG1"], x["BB1"]))
    before = [max(s * (size - 1) + 3 - given, 0) // 2 for size, given in ((n["y"], n["iy"]), (n["x"], n["ix"]))]
    padded = np.pad(hidden, [(0, 0), (0, 0), (before[0], s + 2), (before[1], s + 2)])
    filtered = np.zeros((*hidden.shape[:2], n["y"], n["x"]))
    shortcut = np.zeros((*image.shape[:2], n["y"], n["x"]))
    for y in range(n["y"]):
        for c in range(n["x"]):
            filtered[..., y, c] = np.einsum("brij,rij->br", padded[..., s * y : s * y + 3, s * c : s * c + 3], x["WD"])
            shortcut[..., y, c] = image[..., s * y : s * y + s, s * c : s * c + s].mean(axis=(-2, -1))
    hidden = _gelu(scaled(filtered, x["BG2"], x["BB2"]))
    image = np.einsum("dc,bcyx->bdyx", x["WS"], shortcut) + np.einsum("dr,bryx->bdyx", x["W2"], hidden)
    tokens = _norm(image, x["LG"], x["LB"], 1, 1e-6)
    q, k, v = (np.einsum("hed,bdyx->hbeyx", x[w], tokens) for w in ("WQ", "WK", "WV"))
    pixels = _box(range(n["y"]), range(n["x"]))
    attended = _per_pixel(q, k, v, lambda y, c: pixels, _table(x["RPB"], n["y"], n["x"]))
    return image + np.einsum("ghf,hbfyx->bgyx", x["WO"], attended)


def moat(x, n):
    image = x["IN"]

    def scaled(a, gain, shift):
        return a * gain[:, None, None] + shift[:, None, None]

    hidden = np.einsum("rc,bcyx->bryx", x["W1"], scaled(image, x["BG0"], x["BB0"]))
    hidden = _filtered(_gelu(scaled(hidden, x["BG1"], x["BB1"])), x["WD"])
    hidden = _gelu(scaled(hidden, x["BG2"], x["BB2"]))
    image = image + np.einsum("dr,bryx->bdyx", x["W2"], hidden)
    tokens = _norm(image, x["LG"], x["LB"], 1, 1e-6)
    q, k, v = (np.einsum("hec,bcyx->hbeyx", x[w], tokens) for w in ("WQ", "WK", "WV"))
    pixels = _box(range(n["y"]), range(n["x"]))
    attended = _per_pixel(q, k, v, lambda y, c: pixels, _table(x["RPB"], n["y"], n["x"]))
    return image + np.einsum("dhf,hbfyx->bdyx", x["WO"], attended)


# Rolled groups


def _rolled_mask(n, shift):
    """Keys in the group of the query and not later, both in the order rolled by ``shift``."""
    place = (np.arange(n["p"]) - shift) % n["p"]
    query, key = place[:, None], place[None, :]
    return (query // n["g"] == key // n["g"]) & (key <= query)


def s2_attn(x, n):
    """Two full matrices, one with the mask of the rolled order."""
    parts = [_masked(*(x[name][:, :, z] for name in "QKV"), _rolled_mask(n, z * (n["g"] // 2))) for z in (0, 1)]
    return np.stack(parts, axis=2)


def sf_attn(x, n):
    parts = []
    for z in range(n["z"]):
        mask = _rolled_mask(n, n["g"] // 2 if z == n["z"] - 1 else 0)
        mask[:, : n["s"]] = True
        mask[: n["s"]] = True
        parts.append(_masked(*(x[name][:, :, z] for name in "QKV"), mask))
    return np.stack(parts, axis=2)
