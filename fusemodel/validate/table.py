"""Measured times from a CSV (plain or gzip): columns as arrays, and every row that cannot be used with the reason."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusemodel.errors import InputError, Where, nearest

#: Columns of text; every other one used is a number.
TEXT = ("gpu", "kernel", "op", "dtype", "scope", "source", "l2", "group")
#: Columns that say what a kernel of attention, or a product or a row operation, was run on.
SHAPES = (("batch", "heads", "kv_heads", "seq_q", "seq_kv", "head_dim", "window", "causal"), ("M", "N", "K"))
#: Launches that one replay of a graph holds, of which the time is one's share; a table may leave it out.
LAUNCHES = "launches"
#: Energy of one launch; a table may leave it out, or write 0 for it.
ENERGY = "energy_j"
MAX_BYTES = 2**31
_TRUTH = {"true": "1", "false": "0", "yes": "1", "no": "0"}
_DTYPES = {"float16": "fp16", "half": "fp16", "bfloat16": "bf16", "float32": "fp32", "float": "fp32"}


@dataclass(frozen=True)
class Skipped:
    """A row left out: its line in the file, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class Table:
    """Rows that can be used. ``text`` and ``numbers`` hold columns; ``lines`` the line of each row in the file."""

    file: str
    text: Mapping[str, NDArray[Any]]
    numbers: Mapping[str, NDArray[np.float64]]
    lines: NDArray[np.int64]
    skipped: tuple[Skipped, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.lines)

    def only(self, mask: NDArray[np.bool_], skipped: Iterable[Skipped] = ()) -> Table:
        """The rows of a mask, and further ones left out."""
        return Table(
            self.file, {c: v[mask] for c, v in self.text.items()}, {c: v[mask] for c, v in self.numbers.items()},
            self.lines[mask], (*self.skipped, *skipped),
        )  # fmt: skip


def table_of(path: str | Path, lines: Sequence[int], rows: Sequence[Sequence[str]]) -> Table:
    """The usable rows of a table in the columns of DESIGN section 8, the first row its header; InputError if it is
    none."""
    header = [c.strip() for c in rows[0]]
    where = Where(str(path), lines[0], 1)
    if twice := next((i for i, c in enumerate(header) if c and c in header[:i]), 0):
        raise InputError(
            f"column {header[twice]!r} stands twice", Where(str(path), lines[0], len(",".join(rows[0][:twice])) + 2)
        )
    _check_columns(header, where)
    good, skipped = [], []
    for line, row in zip(lines[1:], rows[1:], strict=True):
        if not row:
            continue
        if not "".join(row).strip():
            skipped.append(Skipped(line, "an empty row"))
        elif len(row) != len(header):
            skipped.append(Skipped(line, f"{len(row)} field{'s' * (len(row) != 1)}, not {len(header)}"))
        else:
            good.append((line, row))
    wanted = [*TEXT, *(c for shape in SHAPES for c in shape), "B", "latency_us", LAUNCHES, ENERGY]
    by_name = {c: [row[i] for _, row in good] for i, c in enumerate(header) if c in wanted}
    text = {c: np.array([v.strip() for v in by_name[c]] if c in by_name else [""] * len(good), object) for c in TEXT}
    plain = [v.lower().removeprefix("torch.") for v in text["dtype"]]
    text["dtype"] = np.array([_DTYPES.get(v, v) for v in plain], dtype=object)
    numbers = {c: _numbers(by_name[c]) for c in by_name if c not in TEXT and c != "B"}
    if "B" in by_name and "batch" not in by_name:
        numbers["batch"] = _numbers(by_name["B"])
    table = Table(str(path), text, numbers, np.array([n for n, _ in good], dtype=np.int64), tuple(skipped))
    return _checked(table, {c: by_name[c] for c in numbers if c in by_name})


def read_rows(path: str) -> tuple[list[int], list[list[str]]]:
    """Every row of a file with the line it begins on, the header first; InputError for what is no CSV."""
    where = Where(path, 1, 1)
    try:
        data = Path(path).read_bytes()
        if data[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(data)) as stream:
                data = stream.read(MAX_BYTES)
        text = data.decode("utf-8-sig")
        if "\0" in text:
            raise InputError("this is no text", where, expected="a CSV file")
        lines, rows, reader = [], [], csv.reader(io.StringIO(text, newline=""))
        while True:
            line = reader.line_num + 1
            where = Where(path, line, 1)
            row = next(reader, None)
            if row is None and not rows:
                raise InputError("there is no header", Where(path, 1, 1), expected="a line of column names")
            if row is None:
                return lines, rows
            if rows or "".join(row).strip():
                lines.append(line)
                rows.append(row)
    except FileNotFoundError:
        raise InputError(f"no such file: {path!r}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot be read: {getattr(error, 'strerror', None) or error}", Where(path)) from None
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        where = Where(path, before.count(b"\n") + 1, error.start - before.rfind(b"\n"))
        raise InputError("this is not UTF-8 text", where, expected="a CSV file") from None
    except csv.Error as error:
        raise InputError(f"not a CSV file: {error}", where) from None


def _check_columns(header: Sequence[str], where: Where) -> None:
    missing = [c for c in ("gpu", "dtype", "latency_us") if c not in header]
    if "kernel" not in header and "op" not in header:
        missing.append("kernel")
    attention, product = ([c for c in shape if c not in header] for shape in SHAPES)
    if len(header) == 1 and (other := next((c for c in ";\t|" if c in header[0]), None)):
        raise InputError(f"columns are separated by {other!r}", where, expected="commas")
    if attention and product:
        missing += product if len(product) < len(SHAPES[1]) else attention
    if missing:
        near = nearest(missing[0], [c for c in header if c not in TEXT])
        raise InputError(
            f"column{'s' if len(missing) > 1 else ''} {', '.join(map(repr, missing))} missing", where,
            expected="gpu, kernel, op, dtype, " + ", ".join(SHAPES[0]) + ", latency_us",
            nearest=near,
        )  # fmt: skip


def _numbers(values: Sequence[str]) -> NDArray[np.float64]:
    """Numbers of a column; NaN for what is none."""
    try:
        return np.array(values, dtype=np.float64)
    except ValueError:
        return np.array([_number(v) for v in values], dtype=np.float64)


def _number(text: str) -> float:
    try:
        return float(_TRUTH.get(text.strip().lower(), text))
    except ValueError:
        return np.nan


def _checked(table: Table, raw: Mapping[str, Sequence[str]]) -> Table:
    """The rows whose numbers can be, and why the others cannot."""
    reason = np.full(len(table), "", dtype=object)

    def refuse(mask: NDArray[np.bool_], column: str, what: str) -> None:
        for i in np.flatnonzero(mask & (reason == "")).tolist():
            shown = str(raw[column][i]).strip() if column in raw else str(table.numbers[column][i])
            reason[i] = f"{column} is {shown[:40]!r}, {what}"

    numbers = table.numbers
    blank = {c: np.array([not str(v).strip() for v in values], dtype=bool) for c, values in raw.items()}
    absent = [_all(blank, shape, len(table)) for shape in SHAPES]  # tables of both have rows of one
    spare = {
        c: gone & ~other for shape, gone, other in zip(SHAPES, absent, reversed(absent), strict=True) for c in shape
    }
    for column, zeros in _unsaid(numbers).items():
        spare[column] = spare[column] | zeros
        numbers[column][zeros] = np.nan
    if LAUNCHES in blank:
        spare[LAUNCHES] = blank[LAUNCHES]
    latency = numbers["latency_us"]
    refuse(~np.isfinite(latency) | (latency <= 0), "latency_us", "no positive time")
    if ENERGY in numbers:
        given = numbers[ENERGY]
        refuse(~blank[ENERGY] & ~(np.isfinite(given) & (given >= 0)), ENERGY, "no energy")
        given[given == 0] = np.nan
    for column, values in numbers.items():
        if column in ("latency_us", ENERGY):
            continue
        least = 0 if column in ("window", "causal") else 1
        with np.errstate(invalid="ignore"):
            bad = ~np.isfinite(values) | (values != np.floor(values)) | (values < least) | (values > 2**31)
        refuse(bad & ~spare.get(column, False), column, f"no whole number from {least}")
    if "causal" in numbers:
        refuse(numbers["causal"] > 1, "causal", "neither 0 nor 1")
    if "kv_heads" in numbers:
        with np.errstate(all="ignore"):
            uneven = np.mod(numbers["heads"], numbers["kv_heads"])
            refuse(np.isfinite(uneven) & (uneven != 0), "kv_heads", "does not divide the heads")
        refuse((numbers["causal"] == 1) & (numbers["seq_q"] > numbers["seq_kv"]), "seq_q", "more than the keys it sees")
    for i in np.flatnonzero((table.text["gpu"] == "") & (reason == "")):
        reason[i] = "no gpu is named"
    bad = reason != ""
    left_out = [Skipped(int(table.lines[i]), str(reason[i])) for i in np.flatnonzero(bad)]
    return table.only(~bad, left_out)


def _unsaid(numbers: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.bool_]]:
    """Where tables that have columns of both shapes write 0 for what a row is not about."""
    attention, product = ([c for c in shape if c != "batch" and c in numbers] for shape in SHAPES)
    if not attention or not product:
        return {}
    none: NDArray[np.bool_] = np.all([numbers[c] == 0 for c in attention], axis=0)
    return {**dict.fromkeys(attention, none), **{c: numbers[c] == 0 for c in product}}


def _all(blank: Mapping[str, NDArray[np.bool_]], shape: Sequence[str], length: int) -> NDArray[np.bool_]:
    """Rows that have none of some columns, or the table does not."""
    found = np.ones(length, dtype=bool)
    for column in shape:
        if column != "batch":  # which both have
            found &= blank.get(column, True)
    return found


__all__ = ["ENERGY", "LAUNCHES", "Skipped", "Table", "read_rows", "table_of"]
