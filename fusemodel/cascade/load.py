"""Cascade files (DESIGN section 4) to checked cascades."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from fusemodel.cascade.check import check, check_ranges, infer_tensors
from fusemodel.cascade.extents import MAX_EXTENT, extents_of
from fusemodel.cascade.ir import Cascade, Expr, Number
from fusemodel.cascade.parse import Names, parse_equations, parse_expression, parse_number
from fusemodel.errors import InputError, Where, unknown
from fusemodel.library import check_kind, find, modified_ns
from fusemodel.yamlfile import Document, check_fields, parse_yaml, read_yaml

MAX_RANKS = 200
FIELDS = (
    "name", "about", "source", "provenance", "ranks", "batch", "split", "sequence", "test", "inputs", "parameters",
    "outputs", "reference", "einsums",
)  # fmt: skip


def load_cascade(name: str, *, beside: str = "", where: Where | None = None) -> Cascade:
    """A cascade by library name or path; InputError with a place for anything wrong with it."""
    path = find("cascades", name, beside=beside, where=where)
    return _cached(str(path), modified_ns(path))


@lru_cache(maxsize=64)
def _cached(path: str, _stamp: int) -> Cascade:
    return build_cascade(read_yaml(path))


def parse_cascade(text: str, file: str = "<text>") -> Cascade:
    """A cascade from the text of a file."""
    return build_cascade(parse_yaml(text, file))


def build_cascade(doc: Document) -> Cascade:
    """A checked cascade from a loaded file."""
    check_kind(doc, "cascades")
    data = check_fields(doc, (), doc.data, FIELDS)
    for required in ("ranks", "inputs", "outputs", "einsums"):
        if data.get(required) in (None, {}, [], ""):
            raise InputError(f"field {required!r} is missing or empty", doc.where(required))
    ranks = _ranks(doc)
    names = Names(ranks)
    split = _split(doc, ranks)
    inputs, parameters = _inputs(doc, ranks)
    declared, outputs = _outputs(doc, ranks)
    einsums = parse_equations(_text(doc, "einsums"), names, doc.blocks.get(("einsums",), doc.where("einsums")))
    if not einsums:
        raise InputError("there are no equations", doc.where("einsums"))
    places = {r: doc.where("ranks", r) for r in ranks}
    places |= {t: doc.where_key("parameters" if t in parameters else "inputs", t) for t in inputs}
    places |= {f"outputs.{t}": doc.where("outputs") for t in outputs}
    places |= {f"test.{r}": doc.where("test", r) for r in data.get("test") or {}}
    places[".reference"] = doc.where("reference")
    tensors = infer_tensors(einsums, inputs, declared, places, split, parameters)
    cascade = Cascade(
        name=_text(doc, "name") or doc.file,
        ranks=ranks,
        batch=_rank_list(doc, ("batch",), data.get("batch") or [], ranks),
        split=split,
        inputs=inputs,
        outputs=outputs,
        einsums=einsums,
        tensors=tensors,
        about=" ".join(_text(doc, "about").split()),
        source=" ".join(_text(doc, "source").split()),
        provenance=" ".join(_text(doc, "provenance").split()),
        reference=_text(doc, "reference") or None,
        sequence=_rank_list(doc, ("sequence",), data.get("sequence") or [], ranks),
        shapes={t: r for t, r in declared.items() if t in tensors and r != tensors[t].ranks},
        test=_test(doc, ranks),
        parameters=parameters,
        file=doc.file,
        places=places,
    )
    check(cascade)
    check_ranges(cascade, extents_of(cascade))
    if cascade.test:
        check_ranges(cascade, extents_of(cascade, cascade.test))
    return cascade


def _mapping(doc: Document, field: str) -> Mapping[str, Any]:
    value = doc.data.get(field) or {}
    if not isinstance(value, dict):
        raise InputError(f"{field!r} is not a mapping", doc.where(field), expected=f"`{field}: {{name: ...}}`")
    return value


def _text(doc: Document, field: str) -> str:
    value = doc.data.get(field)
    if value is None:
        return ""
    if isinstance(value, (dict, list)):
        raise InputError(f"{field!r} is not text", doc.where(field), expected="text")
    return str(value)


def _is_name(name: str) -> bool:
    return name.isascii() and name.isidentifier()


def _ranks(doc: Document) -> dict[str, Expr]:
    raw = _mapping(doc, "ranks")
    for rank in raw:
        if not _is_name(rank) or rank != rank.lower() or rank in ("inf", "and", "or", "not", "where"):
            raise InputError(f"{rank!r} cannot name a rank", doc.where_key("ranks", rank),
                             expected="a lower-case name")  # fmt: skip
    if len(raw) > MAX_RANKS:
        raise InputError(f"there are {len(raw)} ranks", doc.where("ranks"), expected=f"at most {MAX_RANKS}")
    return {r: _extent(doc, r, v, raw) for r, v in raw.items()}


def _extent(doc: Document, rank: str, value: Any, ranks: Mapping[str, Any]) -> Expr:
    where = doc.where("ranks", rank)
    if isinstance(value, str):
        return parse_expression(value, Names(ranks, extents_only=True), doc.blocks.get(("ranks", rank), where))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"rank {rank!r} has no extent", where, expected="a number or an expression of other ranks")
    return Number(value)


def parse_size(value: Any, what: str, where: Where) -> int:
    """A positive whole number, perhaps with a suffix (``16K``)."""
    try:
        number = parse_number(value.strip()) if isinstance(value, str) else value
    except (ValueError, IndexError):
        number = None
    if isinstance(number, bool) or not isinstance(number, (int, float)) or number != number:
        raise InputError(f"{what} is {value!r}", where, expected="a whole number such as 1024 or 16K")
    if not 1 <= number <= MAX_EXTENT or number != int(number):
        raise InputError(f"{what} is {value}", where, expected="a whole number from 1 to 2^40")
    return int(number)


def _test(doc: Document, ranks: Mapping[str, Expr]) -> dict[str, int]:
    result = {}
    for rank, value in _mapping(doc, "test").items():
        if rank not in ranks:
            raise unknown("rank", rank, ranks, doc.where_key("test", rank))
        result[rank] = parse_size(value, f"the test extent of {rank!r}", doc.where("test", rank))
    return result


def _rank_list(doc: Document, path: tuple[str, ...], value: Any, ranks: Mapping[str, Any]) -> tuple[str, ...]:
    if value is None:
        value = []
    if not isinstance(value, list):
        raise InputError(f"{path[-1]!r} has no list of ranks", doc.where(*path), expected="a list such as [e, p]")
    for i, rank in enumerate(value):
        if not isinstance(rank, str) or rank not in ranks:
            raise unknown("rank", str(rank), ranks, doc.where(*path, i))
        if rank in value[:i]:
            raise InputError(f"rank {rank!r} is listed twice", doc.where(*path, i))
    if path[0] in ("inputs", "parameters") and not _is_name(path[1]):
        raise InputError(f"{path[1]!r} cannot name a tensor", doc.where_key(*path), expected="letters, digits and _")
    return tuple(value)


def _inputs(doc: Document, ranks: Mapping[str, Any]) -> tuple[dict[str, tuple[str, ...]], frozenset[str]]:
    """What is given, with its ranks, and the names of what is the same for every element of the batch."""
    result: dict[str, tuple[str, ...]] = {}
    for field in ("inputs", "parameters"):
        for tensor, value in _mapping(doc, field).items():
            if tensor in result:
                raise InputError(f"{tensor!r} is an input and a parameter", doc.where_key(field, tensor))
            result[tensor] = _rank_list(doc, (field, tensor), value, ranks)
    return result, frozenset(_mapping(doc, "parameters"))


def _outputs(doc: Document, ranks: Mapping[str, Any]) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    raw = doc.data["outputs"]
    if isinstance(raw, dict):
        declared = {t: _rank_list(doc, ("outputs", t), v, ranks) for t, v in raw.items() if v is not None}
        return declared, tuple(raw)
    if isinstance(raw, list) and all(isinstance(t, str) for t in raw):
        if len(set(raw)) != len(raw):
            raise InputError("an output is listed twice", doc.where("outputs"))
        return {}, tuple(raw)
    raise InputError("'outputs' is not a list of tensors", doc.where("outputs"), expected="a list such as [AV]")


def _split(doc: Document, ranks: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    result: dict[str, tuple[str, str]] = {}
    for whole, value in _mapping(doc, "split").items():
        if whole not in ranks:
            raise unknown("rank", whole, ranks, doc.where_key("split", whole))
        parts = _rank_list(doc, ("split", whole), value, ranks)
        if len(parts) != 2 or whole in parts:
            raise InputError(f"{whole!r} is split into {len(parts)} parts", doc.where("split", whole),
                             expected=f"an outer and an inner rank: [{whole}1, {whole}0]")  # fmt: skip
        for other in result.values():
            if set(parts) & set(other):
                raise InputError("a rank is part of two splits", doc.where("split", whole))
        result[whole] = (parts[0], parts[1])
        if whole in _within(result, whole):
            raise InputError(f"{whole!r} is a part of itself", doc.where("split", whole))
    return result


def _within(split: Mapping[str, tuple[str, str]], whole: str) -> set[str]:
    """The parts of a rank, and theirs, in splits that may go in circles."""
    found: set[str] = set()
    pending = [whole]
    while pending:
        parts = set(split.get(pending.pop(), ())) - found
        found |= parts
        pending += parts
    return found


def at_extents(cascade: Cascade, extents: Mapping[str, int]) -> Cascade:
    """The cascade with other default extents for some of its ranks; InputError for one that it does not have."""
    if not extents:
        return cascade
    extents_of(cascade, extents)
    ranks = {**cascade.ranks, **{r: Number(n) for r, n in extents.items()}}
    return replace(cascade, ranks=ranks)
