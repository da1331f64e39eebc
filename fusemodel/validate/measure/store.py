"""The CSV files of measurements and of failures: one row at a time, never half a row, and read again to go on."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusemodel.errors import InputError, Where, nearest
from fusemodel.validate.measure.case import Case

#: What tells a point from another on one device.
POINT = (
    "group", "kernel", "op", "dtype", "batch", "heads", "kv_heads", "seq_q", "seq_kv", "head_dim", "window", "causal",
    "M", "N", "K",
)  # fmt: skip
#: Of the device and the software, the same for all rows of a run.
PROVENANCE = (
    "source", "sms", "l2_mb", "memory_gb", "power_limit_w", "max_sm_clock_mhz", "driver", "cuda_driver",
    "cuda", "cudnn", "torch", "triton", "python",
)  # fmt: skip
#: Columns of a measurement; ``gpu`` to ``latency_us`` are those that a validation reads.
COLUMNS = (
    "gpu", *POINT, "l2", "repeat", "latency_us", "p10_us", "p90_us", "n", "launches", "how", "config", "rel_error",
    "flop", "exps", "bytes", "tflops", "gbs", "sm_clock_mhz", "sm_clock_min_mhz", "mem_clock_mhz", "power_w",
    "temperature_c", "throttle", "energy_j", "idle_w", "energy_above_idle_j", "date", "order", "seed", *PROVENANCE,
)  # fmt: skip
FAILURE_COLUMNS = ("gpu", *POINT, "l2", "stage", "error", "message", "date", "torch", "triton", "driver")

Key = tuple[str, ...]
Row = Mapping[str, Any]


def point_of(case: Case) -> dict[str, Any]:
    """The columns that name a case."""
    from fusemodel.validate.measure.case import matrix

    m, n, k = matrix(case)
    data = {**case.to_dict(), "M": m, "N": n, "K": k}
    return {c: data[c] for c in POINT}


def key_of(row: Row) -> Key:
    """What makes a row the same measurement as another: device, point, cache, and whether it is the repeat."""
    return (*(str(row[c]) for c in ("gpu", *POINT, "l2")), str(row.get("repeat", 0)))


class Table:
    """A CSV file with given columns that grows by whole rows, each on disk before the next is measured."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Open ``path`` to append, creating it with its header in one step. A last line that was cut off is removed.

        InputError where the file cannot be written, or is not one of these tables."""
        self.path, self.columns = path, tuple(columns)
        try:
            if not path.exists() or path.stat().st_size == 0:
                _create(path, _line(self.columns))
            self.repaired = _repair(path, self.columns)
            self.rows = read(path, self.columns)
            self._file = path.open("a", encoding="utf-8", newline="")
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror or error}") from error

    def add(self, row: Row) -> None:
        """Append a row: one write, then to the disk."""
        values = {c: _text(row.get(c)) for c in self.columns}
        try:
            self._file.write(_line([values[c] for c in self.columns]))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise InputError(f"{self.path} cannot be written: {error.strerror or error}") from error
        self.rows.append(values)

    def close(self) -> None:
        self._file.close()


def read(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a table. InputError, with the line, where it has other columns or a row of another length."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        header = next(lines, [])
        if tuple(header) != tuple(columns):
            odd = next((c for c in header if c not in columns), next((c for c in columns if c not in header), ""))
            raise InputError(
                f"the columns are not those of a table of measurements, beginning with {odd!r}",
                Where(str(path), 1, 1),
                expected=f"{', '.join(columns[:6])} ... ({len(columns)} columns)",
                nearest=nearest(odd, columns) if odd not in columns else "",
            )
        rows = []
        for values in lines:
            if len(values) != len(columns):
                where = Where(str(path), lines.line_num, 1)
                raise InputError(f"a row of {len(values)} fields", where, expected=f"{len(columns)}")
            rows.append(dict(zip(columns, values, strict=True)))
    return rows


def _create(path: Path, header: str) -> None:
    """Write beside and rename, so that the file never lacks its header."""
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(header)
        Path(beside).chmod(0o644)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _repair(path: Path, columns: Sequence[str]) -> bool:
    """Cut off a last line that was not written to its end; whether there was one. No field holds a line break."""
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end == len(data):
        return False
    if end == 0 and not _line(columns).encode().startswith(data):
        return False  # not ours: reading it will say so
    if end == 0:
        path.unlink()
        _create(path, _line(columns))
        return True
    with path.open("r+b") as file:
        file.truncate(end)
    return True


def _line(values: Sequence[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()


def _text(value: Any) -> str:
    """A value as a field: short numbers, nothing for None, one line."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return " ".join(str(value).split())
