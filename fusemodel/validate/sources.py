"""Tables of measurements in any form that is read: in our columns, or as collectors of others write them.

The other form is that of the performance files of serving-system tuners (docs/validation.md names them), read from a
user's own copy: one row a shape, the device, the kernel's source, lengths as ``isl`` and ``step``, milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fusemodel.errors import InputError, Where, nearest
from fusemodel.validate.table import Table, read_rows, table_of

#: Columns that a collector's file has and ours has not.
_THEIRS = {"device", "kernel_source", "latency"}
_SAME = {
    "device": "gpu", "kernel_source": "kernel", "op_name": "op", "batch_size": "batch", "num_heads": "heads",
    "num_key_value_heads": "kv_heads", "head_dim": "head_dim", "head_size": "head_dim", "window_size": "window",
    "m": "M", "n": "N", "k": "K",
}  # fmt: skip
_OURS = (
    "gpu", "kernel", "op", "dtype", "batch", "heads", "kv_heads", "seq_q", "seq_kv", "head_dim", "window", "causal",
    "latency_us", "source",
)  # fmt: skip
#: What rows of recurrent layers (gated delta rule, state spaces) have: the first of each that is filled in.
_RECURRENT = {
    "heads": ("num_v_heads", "nheads"), "kv_heads": ("num_k_heads", "n_groups"), "head_dim": ("head_v_dim", "head_dim"),
    "seq_q": ("seq_len",), "seq_kv": ("seq_len",),
}  # fmt: skip
#: What rows of attention need, any of each.
_NEEDED = (("op_name",), ("batch_size",), ("isl",), ("num_heads",), ("num_key_value_heads",), ("head_dim", "head_size"))
_PRODUCT = ("gpu", "kernel", "op", "dtype", "batch", "M", "N", "K", "latency_us", "source")


def read_any(path: str | Path) -> Table:
    """The usable rows of a table in either form; InputError for a file that is neither."""
    lines, rows = read_rows(str(path))
    header = [c.strip() for c in rows[0]]
    if set(header) >= _THEIRS and "latency_us" not in header:
        _check(header, Where(str(path), lines[0], 1))
        rows = _converted(header, rows[1:])
    return table_of(path, lines, rows)


def _check(header: Sequence[str], where: Where) -> None:
    """InputError where rows of attention lack a column; products and recurrent layers have others."""
    if {"m", "n", "k"} <= set(header) or "seq_len" in header:
        return
    if missing := next((c for c in _NEEDED if not set(c) & set(header)), None):
        raise InputError(
            f"column {missing[0]!r} missing", where, expected=", ".join(c[0] for c in _NEEDED),
            nearest=nearest(missing[0], [c for c in header if c not in _SAME]),
        )  # fmt: skip


def _converted(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Rows in our columns. One that has another number of fields stays as it is, to be left out by name."""
    columns = _PRODUCT if {"m", "n", "k"} <= set(header) else _OURS
    found: list[list[str]] = [list(columns)]
    for row in rows:
        if len(row) != len(header):
            found.append([*row, *[""] * (len(columns) + 1)] if len(row) == len(columns) else list(row))
            continue
        old = dict(zip(header, (c.strip() for c in row), strict=True))
        found.append([_value(c, old) for c in columns])
    return found


def _value(column: str, old: Mapping[str, str]) -> str:
    """The value of one of our columns."""
    decode = "generation" in old.get("op_name", "")
    if column in _RECURRENT and "seq_len" in old:
        return next((old[c] for c in _RECURRENT[column] if old.get(c)), "")
    match column:
        case "dtype":
            own = next((old[c] for c in ("attn_dtype", "gemm_dtype", "dtype") if c in old), "")
            cache = old.get("kv_cache_dtype", own)
            return own if cache in ("", own, "auto") else f"{own} with {cache} cache"
        case "seq_q":
            return "1" if decode else old.get("isl", "")
        case "seq_kv":
            return _sum(old.get("isl", ""), old.get("step", "")) if decode else old.get("isl", "")
        case "causal":
            return "1" if "context" in old.get("op_name", "") else "0"
        case "latency_us":
            return _scaled(old["latency"], 1e3)
        case "source":
            return " ".join(filter(None, (old.get("framework", ""), old.get("version", ""))))
    theirs = next((t for t, ours in _SAME.items() if ours == column and t in old), "")
    return old.get(theirs, {"window": "0", "batch": "1"}.get(column, ""))


def _sum(a: str, b: str) -> str:
    try:
        return str(int(a) + int(b or 0))
    except ValueError:
        return f"{a}+{b}"


def _scaled(text: str, by: float) -> str:
    try:
        return repr(float(text) * by)
    except ValueError:
        return text
