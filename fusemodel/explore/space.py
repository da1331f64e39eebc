"""Space files: a base architecture, what varies in it, and what each point is to be mapped for."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, Literal

from pydantic import Field

from fusemodel.arch import Architecture
from fusemodel.arch.spec import build_architecture
from fusemodel.cascade.load import parse_size
from fusemodel.errors import InputError, Where, unknown
from fusemodel.explore.fields import RESERVED, Formula, Number, Tree, compiled, filled, formula, shown
from fusemodel.library import check_kind, find, modified_ns
from fusemodel.specfile import Spec, document_place, validate
from fusemodel.yamlfile import Document, Path_, parse_yaml, read_yaml

AREA = "area_mm2"
VARIANT = "variant"
MAX_POINTS = 100_000
Objective = Literal["latency", "energy", "edp", "dram", "buffer"]


class VariantSpec(Spec):
    """An alternative: another base, or other fields of it (null: none of the space's)."""

    name: str
    arch: str | None = None
    set: dict[str, Any] = Field({})


class SpaceSpec(Spec):
    name: str = ""
    about: str = ""
    source: str = ""
    arch: str | None = None
    vary: dict[str, Any] = Field({})
    let: dict[str, int | float | str] = Field({})
    set: dict[str, Any] = Field({})
    variants: list[VariantSpec] = Field([])
    where: str | list[str] = Field([])
    cascades: list[str] = Field(min_length=1)
    workloads: list[str] = Field([])
    seq: list[int | str] = Field([])
    extents: dict[str, int | str] = Field({})
    objectives: list[Objective] = Field(["latency"], min_length=1)


@dataclass(frozen=True)
class Machine:
    """One architecture of a space: the values of its variables, and of what is made from them (and the name of its
    variant), its file's data, and
    extents that follow it."""

    values: Mapping[str, Number | str]
    arch: Architecture
    data: Mapping[str, Any] = field(repr=False)
    extents: Mapping[str, Number]

    @property
    def area_mm2(self) -> float:
        return area_mm2(self.arch)


@dataclass(frozen=True)
class Space:
    """Architectures, and the cascades, workloads and lengths that each is mapped for; ``left_out`` points do not meet
    the conditions of the file."""

    name: str
    about: str
    source: str
    file: str
    variables: tuple[str, ...]
    machines: tuple[Machine, ...]
    left_out: int
    cascades: tuple[str, ...]
    workloads: tuple[str, ...]
    seqs: tuple[int, ...]
    objectives: tuple[str, ...]


def area_mm2(arch: Architecture) -> float:
    """The sum of the areas that an architecture's file gives."""
    return sum(arch.area_um2().values()) * 1e-6


def load_space(name: str) -> Space:
    """A space by library name or path."""
    path = find("spaces", name)
    return _cached(str(path), modified_ns(path))


@lru_cache(maxsize=8)
def _cached(path: str, _stamp: int) -> Space:
    return build_space(read_yaml(path))


def parse_space(text: str, file: str = "<text>") -> Space:
    """A space from the text of a file."""
    return build_space(parse_yaml(text, file))


def build_space(doc: Document) -> Space:
    """A space from a loaded file, every architecture in it checked; InputError with a place for anything wrong."""
    check_kind(doc, "spaces")
    spec = validate(SpaceSpec, doc.data, document_place(doc))
    options = {n: _values(doc, n, v) for n, v in spec.vary.items()}
    names = _names(doc, options, spec)
    count = prod(map(len, options.values())) * max(1, len(spec.variants))
    if count > MAX_POINTS:
        raise InputError(f"{count} points", doc.where_key("vary"), expected=f"at most {MAX_POINTS}")
    made = _Maker(doc, spec, names)
    points = tuple(made.points(options))
    if not points:
        raise InputError(f"none of {count} points meets the conditions", doc.where("where"), expected="at least one")
    variables = (*((VARIANT,) if spec.variants else ()), *names)
    seqs = tuple(parse_size(s, "a length", doc.where("seq", i)) for i, s in enumerate(spec.seq))
    return Space(
        spec.name or doc.file, spec.about, spec.source, doc.file, variables, points, count - len(points),
        _once(spec.cascades), _once(spec.workloads), tuple(dict.fromkeys(seqs)), _once(spec.objectives),
    )  # fmt: skip


def _once(items: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))


def _values(doc: Document, name: str, raw: Any) -> list[Number]:
    """The values of a variable: a list, or ``{from, to, step}`` or ``{from, to, times}``."""
    where = doc.where("vary", name)
    if isinstance(raw, list):
        if not raw:
            raise InputError(f"{name!r} has no values", where, expected="at least one")
        return list(dict.fromkeys(_number(doc, name, v, i) for i, v in enumerate(raw)))
    if not isinstance(raw, dict):
        return [_number(doc, name, raw)]
    for key in raw:
        if key not in ("from", "to", "step", "times"):
            raise unknown("field", key, ["from", "to", "step", "times"], doc.where_key("vary", name, key))
    if not {"from", "to"} <= raw.keys() or ("step" in raw) == ("times" in raw):
        raise InputError(f"{name!r} is no range", where, expected="`{from: 16, to: 512, times: 2}`, or `step` instead")
    low, high = _number(doc, name, raw["from"], "from"), _number(doc, name, raw["to"], "to")
    way = "step" if "step" in raw else "times"
    by = _number(doc, name, raw[way], way)
    if by <= (0 if way == "step" else 1) or (way == "times" and low <= 0) or high < low:
        raise InputError(f"{name!r} never gets from {low:g} to {high:g} by {way} {by:g}", where,
                         expected="`to` beyond `from`, step above 0; times above 1, from above 0")  # fmt: skip
    found: list[Number] = []
    value = low
    while value <= high * (1 + 1e-12):
        if len(found) >= MAX_POINTS:
            raise InputError(f"{name!r} has more than {MAX_POINTS} values", where, expected="a longer step")
        found.append(value)
        value = low + by * len(found) if way == "step" else value * by
    return found


def _number(doc: Document, name: str, value: Any, *path: str | int) -> Number:
    where = doc.where("vary", name, *path)
    if isinstance(value, str) and value[-1:].upper() in "KMGT":
        return parse_size(value, f"a value of {name!r}", where)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or abs(value) > 1e30:
        raise InputError(f"a value of {name!r} is {value!r}", where,
                         expected="a number; its unit stands where it is used: `size: buffer MiB`")  # fmt: skip
    return value


def _names(doc: Document, options: Mapping[str, Any], spec: SpaceSpec) -> tuple[str, ...]:
    for section, given in (("vary", options), ("let", spec.let)):
        for name in given:
            if not name.isidentifier() or name in RESERVED or name in (AREA, VARIANT):
                raise InputError(f"{name!r} cannot name a variable", doc.where_key(section, name),
                                 expected="a name such as `side` that no function or field has")  # fmt: skip
            if section == "let" and name in options:
                raise InputError(f"{name!r} is varied and given", doc.where_key("let", name), expected="one of the two")
    return (*options, *spec.let)


class _Maker:
    """Builds the points of a space from its compiled fields."""

    def __init__(self, doc: Document, spec: SpaceSpec, names: tuple[str, ...]) -> None:
        self.doc, self.spec, self.names = doc, spec, names
        self.let = self._formulas("let", spec.let, names)
        self.extents = self._formulas("extents", spec.extents, names)
        wheres = [spec.where] if isinstance(spec.where, str) else spec.where
        at = [("where",)] if isinstance(spec.where, str) else [("where", i) for i in range(len(wheres))]
        self.where = [formula(w, (*names, AREA), self._place(p)) for w, p in zip(wheres, at, strict=True)]
        self.variants = [self._variant(i, v) for i, v in enumerate(spec.variants)] or [
            ("", *self._laid(self._base(spec.arch, "arch"), {}, "set"))
        ]

    def _place(self, path: Path_) -> Where:
        return self.doc.blocks.get(path) or self.doc.where(*path)

    def _formulas(self, section: str, given: Mapping[str, Any], names: Sequence[str]) -> dict[str, Formula]:
        return {n: formula(str(v), names, self._place((section, n))) for n, v in given.items()}

    def _base(self, name: str | None, *path: str | int) -> Document:
        if name is None:
            raise InputError("field 'arch' is missing", Where(self.doc.file, 1, 1), expected="`arch: NAME`")
        base = read_yaml(find("archs", name, beside=self.doc.file, where=self.doc.where(*path)))
        build_architecture(base)
        return base

    def _variant(self, i: int, variant: VariantSpec) -> tuple[str, Document, dict[Path_, tuple[Tree, Path_]]]:
        if variant.name in [v.name for v in self.spec.variants[:i]]:
            raise InputError(f"two variants have the name {variant.name!r}", self.doc.where("variants", i, "name"),
                             expected="names that differ")  # fmt: skip
        at = ("variants", i, "arch") if variant.arch else ("arch",)
        base = self._base(variant.arch or self.spec.arch, *at)
        return (variant.name, *self._laid(base, variant.set, "variants", i, "set"))

    def _laid(
        self, base: Document, over: Mapping[str, Any], *where: str | int
    ) -> tuple[Document, dict[Path_, tuple[Tree, Path_]]]:
        """The fields set in a base: those of the space, and over them those at ``where``."""
        given: dict[str, Path_] = {k: ("set", k) for k in self.spec.set} | {k: (*where, k) for k in over}
        result = {}
        for name, at in given.items():
            value = over[name] if name in over else self.spec.set[name]
            steps = self._steps(base, name, at, list(given))
            result[steps] = compiled(self.doc, at, value, self.names), at
        return base, result

    def _steps(self, base: Document, name: str, at: Path_, given: Sequence[str]) -> Path_:
        """The path of a field; all but its end must be there, in the base or set before."""
        steps: list[str | int] = []
        here: Any = base.data
        for step in (parts := name.split("."))[:-1]:
            steps.append(int(step) if isinstance(here, list) and step.isdigit() else step)
            inside = here[steps[-1]] if isinstance(here, dict) and step in here else None
            if isinstance(here, list) and isinstance(steps[-1], int) and steps[-1] < len(here):
                inside = here[steps[-1]]
            if inside is None and ".".join(map(str, steps)) not in given:
                valid = list(here) if isinstance(here, dict) else []
                raise unknown("part of an architecture", step, valid, self.doc.where_key(*at))
            here = inside
        return (*steps, int(parts[-1]) if isinstance(here, list) and parts[-1].isdigit() else parts[-1])

    def points(self, options: Mapping[str, Sequence[Number]]) -> Iterator[Machine]:
        for name, base, fields in self.variants:
            for row in product(*options.values()):
                values: dict[str, Number] = dict(zip(options, row, strict=True))
                for n, expression in self.let.items():
                    values[n] = expression.at(values)
                named = {VARIANT: name, **values} if name else values
                if not all(w.at(values) for w in self.where if AREA not in w.text):
                    continue
                document = self._document(base, fields, values)
                try:
                    arch = build_architecture(document)
                except InputError as error:
                    raise InputError(f"{error.message} (at {shown(named)})", error.where, expected=error.expected,
                                     nearest=error.nearest) from None  # fmt: skip
                sized = {**values, AREA: area_mm2(arch)}
                if all(w.at(sized) for w in self.where if AREA in w.text):
                    extents = {r: e.at(values) for r, e in self.extents.items()}
                    yield Machine(named, arch, document.data, extents)

    def _document(
        self, base: Document, fields: Mapping[Path_, tuple[Tree, Path_]], values: Mapping[str, Number]
    ) -> Document:
        """The base with fields set, and places that lead to where each was written."""
        data = copy.deepcopy(base.data)
        keys, places, blocks = dict(base.keys), dict(base.values), dict(base.blocks)
        for path, (tree, at) in fields.items():
            here: Any = data
            for step in path[:-1]:
                here = here[step]
            last = path[-1]
            old = here.get(last) if isinstance(here, dict) else here[last]  # type: ignore[call-overload, index]
            if tree is None and isinstance(here, dict):
                here.pop(last, None)
                continue
            try:
                here[last] = filled(tree, old, values)
            except (IndexError, TypeError):
                raise unknown("part of an architecture", str(last), [], self.doc.where_key(*at)) from None
            for table in (keys, places, blocks):
                for inside in [p for p in table if p[: len(path)] == path]:
                    del table[inside]
            for source, table in ((self.doc.keys, keys), (self.doc.values, places), (self.doc.blocks, blocks)):
                table |= {(*path, *p[len(at) :]): w for p, w in source.items() if p[: len(at)] == at}
        return Document(base.file, data, keys, places, blocks)


__all__ = ["Machine", "Space", "area_mm2", "build_space", "load_space", "parse_space"]
