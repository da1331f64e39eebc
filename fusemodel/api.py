"""The calls most users make from Python, by name or path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fusemodel.cascade import Cascade, extents_of, load_cascade
from fusemodel.cascade.load import parse_size
from fusemodel.cascade.workload import Workload, check_set, extents_for, load_workload
from fusemodel.errors import InputError, Where
from fusemodel.library import find, kind_of_document, names
from fusemodel.mapping import Design, load_design
from fusemodel.mapping.load import PartialMapping
from fusemodel.model import Evaluation
from fusemodel.model import evaluate as evaluate_design
from fusemodel.yamlfile import Document, read_yaml

if TYPE_CHECKING:
    from fusemodel.explore import Found
    from fusemodel.model.compiled import Batch

#: After so long the best mapping found of a cascade is taken, proven or not.
MAPPING_SECONDS = 20.0


def evaluate(
    mapping: str | Cascade | Design,
    workload: str | Workload | None = None,
    seq: int | str | None = None,
    sets: Mapping[str, int] | None = None,
    arch: str | None = None,
) -> Evaluation:
    """Evaluate a mapping by library name, path or as a loaded design; or a cascade, mapped onto ``arch`` first.

    ``seq`` is a number or text such as ``"16K"``; ``sets`` replaces ranks or tiles by name; ``arch`` runs it on another
    architecture. Raises InputError with a message for people.

    >>> round(evaluate("fusemax", "bert", "1K").latency_s * 1e3, 3)
    2.013
    """
    if isinstance(workload, str):
        workload = load_workload(workload)
    length = parse_size(seq, "the length", Where()) if seq is not None else None
    if isinstance(mapping, Cascade) or (isinstance(mapping, str) and is_cascade(mapping)):
        design = mapped(mapping, arch, workload, length, sets)
    else:
        design = loaded(mapping, arch, workload, length, sets) if isinstance(mapping, str) else mapping
    return evaluate_design(design, workload, length, sets)


def loaded(
    name: str, arch: str | None = None, workload: Workload | None = None, seq: int | None = None,
    sets: Mapping[str, int] | None = None,
) -> Design:  # fmt: skip
    """A design by the library name or path of its mapping; what a partial mapping leaves open is found for the extents
    of a workload."""
    try:
        return load_design(name, arch=arch)
    except PartialMapping as partial:
        return completed(partial.doc, arch, workload, seq, sets).design


def completed(
    doc: Document, arch: str | None = None, workload: Workload | None = None, seq: int | None = None,
    sets: Mapping[str, int] | None = None,
) -> Found:  # fmt: skip
    """The best mapping that has everything a partial mapping file says, at the extents of a workload."""
    from fusemodel.arch import load_architecture
    from fusemodel.explore.partial import complete

    return complete(doc, workload, seq, sets, load_architecture(arch) if arch else None)


def evaluate_batch(
    mapping: str | Design,
    workload: str | Workload | None = None,
    seq: int | str | None = None,
    sets: Mapping[str, Any] | None = None,
    arch: str | None = None,
    columns: Sequence[str] | None = None,
    variants: Mapping[str, str] | None = None,
) -> Batch:
    """Evaluate a mapping for many sizes at once: ``sets`` has ranks or tiles by name, each a number or a column.

    ``columns`` names the results wanted, every field where it is left out; ``variants`` says which variant of a group
    is meant, by the group's name. Rows whose tiles do not divide or fit are marked, not refused
    (:class:`fusemodel.model.compiled.Batch`).

    >>> evaluate_batch("fusemax", "bert", "1K", {"p0": [64, 128, 256]})["dram_bytes"].tolist()
    [402653184.0, 402653184.0, 402653184.0]
    """
    from fusemodel.model.compiled import compile_mapping

    loaded = load_workload(workload) if isinstance(workload, str) else workload
    length = parse_size(seq, "the length", Where()) if seq is not None else None
    design = load_design(mapping, arch=arch) if isinstance(mapping, str) else mapping
    return compile_mapping(design, variants).evaluate(loaded, length, sets, columns)


def is_cascade(name: str) -> bool:
    """Whether a name or file is a cascade and no mapping."""
    if name in names("mappings"):
        return False
    if name in names("cascades"):
        return True
    return kind_of_document(read_yaml(str(find("mappings", name)))) == "cascades"


def mapped(
    cascade: str | Cascade, arch: str | None, workload: Workload | None = None, seq: int | None = None,
    sets: Mapping[str, int] | None = None,
) -> Design:  # fmt: skip
    """A design for a cascade at the extents of a workload, with the mapping that :mod:`fusemodel.explore` finds."""
    from fusemodel.arch import load_architecture
    from fusemodel.explore import best_mapping

    loaded = load_cascade(cascade) if isinstance(cascade, str) else cascade
    if arch is None:
        raise InputError(f"{loaded.name!r} is a cascade, not a mapping", expected="`--arch NAME` to map it onto")
    for name in sets or {}:
        check_set(loaded, name, {})
    extents = extents_of(loaded, extents_for(loaded, workload, seq) | dict(sets or {}))
    return best_mapping(loaded, load_architecture(arch), extents, seconds=MAPPING_SECONDS).design
