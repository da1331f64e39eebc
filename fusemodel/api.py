"""The calls most users make from Python, by name or path."""

from __future__ import annotations

from collections.abc import Mapping

from fusemodel.cascade.load import parse_size
from fusemodel.cascade.workload import Workload, load_workload
from fusemodel.errors import Where
from fusemodel.mapping import Design, load_design
from fusemodel.model import Evaluation
from fusemodel.model import evaluate as evaluate_design


def evaluate(
    mapping: str | Design,
    workload: str | Workload | None = None,
    seq: int | str | None = None,
    sets: Mapping[str, int] | None = None,
    arch: str | None = None,
) -> Evaluation:
    """Evaluate a mapping by library name, path or as a loaded design.

    ``seq`` is a number or text such as ``"16K"``; ``sets`` replaces ranks or tiles by name; ``arch`` runs it on another
    architecture. Raises InputError with a message for people.

    >>> round(evaluate("fusemax", "bert", "1K").latency_s * 1e3, 3)
    2.013
    """
    design = load_design(mapping, arch=arch) if isinstance(mapping, str) else mapping
    if isinstance(workload, str):
        workload = load_workload(workload)
    length = parse_size(seq, "the length", Where()) if seq is not None else None
    return evaluate_design(design, workload, length, sets)
