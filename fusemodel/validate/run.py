"""Validation from files to errors: the calls that the command line makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from fusemodel.arch import load_architecture
from fusemodel.errors import InputError, Where
from fusemodel.library import gpu_dir
from fusemodel.validate.calibration import load_calibration
from fusemodel.validate.fit import Fitted, fit
from fusemodel.validate.join import joined
from fusemodel.validate.predict import predict
from fusemodel.validate.report import Validation, validation_of
from fusemodel.validate.rules import load_rules
from fusemodel.validate.sources import read_any
from fusemodel.validate.table import Table


def shipped() -> list[str]:
    """The tables that come with the library."""
    return [str(p) for p in sorted(gpu_dir().glob("*.csv"))]


def validate(data: Sequence[str] = (), *, rules: str | None = None, calibration: str | None = None) -> Validation:
    """Predict every row of some tables (the library's, if none are given) and compare with what was measured.

    Raises InputError for a file that is no table, or where no row can be predicted; single rows are left out by name.
    """
    files = list(data) or shipped()
    table = joined([read_any(f) for f in files])
    fitted = load_calibration(calibration)
    predictions = predict(table, load_rules(rules), fitted)
    if not len(predictions.table):
        raise _nothing(predictions.table, files[0])
    return validation_of(predictions, fitted, tuple(files))


def _nothing(table: Table, file: str) -> InputError:
    """Why no row of a table can be predicted: the most frequent reasons, the first where it is first met."""
    reasons = Counter(s.reason for s in table.skipped)
    if not reasons:
        return InputError("there are no rows", Where(file, 1, 1), expected="measured times")
    first = next(s.line for s in table.skipped if s.reason == reasons.most_common(1)[0][0])
    why = "; ".join(f"{count} of {len(table.skipped)}: {reason}" for reason, count in reasons.most_common(3))
    more = f"; and {len(reasons) - 3} further reasons" if len(reasons) > 3 else ""
    return InputError(f"no row can be predicted; {why}{more}", Where(file, first, 1),
                      expected="rows of known GPUs and kernels")  # fmt: skip


def fit_to(
    data: Sequence[str], progress: Callable[[str], object] = str, *, rules: str | None = None,
    machine: str | None = None,
) -> Fitted:  # fmt: skip
    """Fit the named efficiencies on half of the shapes of some tables of one machine."""
    if machine is not None:
        machine = load_architecture(machine).name
    return fit([read_any(f) for f in data], load_rules(rules), load_calibration(), progress, machine)
