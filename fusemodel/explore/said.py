"""What a mapping file says where parts of it are open (``auto``): its groups, checked as far as they are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fusemodel.arch import Architecture
from fusemodel.arch.units import quantity
from fusemodel.cascade import Cascade
from fusemodel.errors import InputError, Where, unknown
from fusemodel.explore.frame import Scene
from fusemodel.library import called
from fusemodel.mapping.load import candidates_of, origins_of, overlay, place_in, raw_groups, split_bind, used_groups
from fusemodel.mapping.partial import AUTO, SECTIONS, is_open
from fusemodel.mapping.spec import ALL, Candidates, GroupSpec, MappingSpec
from fusemodel.specfile import Place, document_place, validate
from fusemodel.yamlfile import Document

#: What the search knows by itself. Whatever else a group says is looked at mapping by mapping.
_KNOWN = {*SECTIONS, "name", "budget", "minimise"}


@dataclass(frozen=True)
class Said:
    """One way a group is given: its fields, ``bind`` with an entry for each Einsum. ``alone``: it is the only group."""

    raw: Mapping[str, Any]
    place: Place
    alone: bool

    def where(self, *inner: str | int, key: bool = False) -> Where:
        return self.place(inner, key)

    @property
    def given(self) -> bool:
        """Whether nothing is open: what is missing in a partial file is."""
        bound = [n for n, b in self.bind.items() if isinstance(b, Mapping) and {"unit", "spatial"} <= b.keys()]
        every = all(x in self.raw and not is_open(self.raw[x]) for x in SECTIONS if x != "tile")
        return len(bound) == len(self.bind) > 0 and every and not is_open(self.tile)

    @property
    def bind(self) -> Mapping[str, Any]:
        bind = self.raw.get("bind", AUTO)
        return {} if bind == AUTO or bind is None else bind

    @property
    def tile(self) -> Mapping[str, Any]:
        tile = self.raw.get("tile", AUTO)
        return {} if tile == AUTO else tile

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """The parts that ranks are tiled in."""
        return {r: tuple(v) for r, v in self.tile.items() if isinstance(v, list) and v and isinstance(v[0], str)}

    @property
    def keep(self) -> Mapping[str, Any] | None:
        """For each level the loop of each tensor; None: everything is open."""
        keep = self.raw.get("keep", AUTO)
        if keep == AUTO:
            return None
        return {
            level: held if held == AUTO else {t: k["under"] if isinstance(k, Mapping) else k for t, k in held.items()}
            for level, held in keep.items()
        }

    @property
    def details(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What is said of tiles besides their loop, by level and tensor."""
        keep = self.raw.get("keep", AUTO)
        return {
            (level, t): more for level, held in (keep.items() if keep != AUTO else ()) if held != AUTO
            for t, k in held.items()
            if isinstance(k, Mapping) and (more := {x: v for x, v in k.items() if x != "under"})
        }  # fmt: skip

    @property
    def more(self) -> dict[str, Any]:
        """Fields of the group that stay as they are."""
        every = {k: v for k, v in self.raw.items() if k not in (*SECTIONS, "minimise", "variants")}
        return {k: v for k, v in every.items() if k != "name" or not self.alone}

    @property
    def beyond(self) -> list[str]:
        """What the search does not know by itself."""
        defaults = GroupSpec.model_fields
        plain = {k for k in self.raw if k in _KNOWN or (k in defaults and self.raw[k] == defaults[k].default)}
        return [*(k for k in self.raw if k not in plain), *dict.fromkeys(x for d in self.details.values() for x in d)]

    @property
    def minimise(self) -> tuple[str, ...]:
        said = self.raw.get("minimise") or ()
        return (said,) if isinstance(said, str) else tuple(said)

    @property
    def nests(self) -> list[tuple[str, ...]]:
        """Einsums that one entry of ``bind`` gives one nest of loops."""
        found: dict[Where, list[str]] = {}
        for name, said in self.bind.items():
            if isinstance(said, Mapping):
                found.setdefault(self.where("bind", name, key=True), []).append(name)
        return [*map(tuple, found.values())]

    @property
    def joined(self) -> dict[str, Any]:
        """The fields with one entry of ``bind`` for Einsums that are bound together."""
        bind = {", ".join(nest): self.bind[nest[0]] for nest in self.nests}
        return {**self.raw, "bind": bind}

    def with_ranks(self, sizes: Mapping[str, int]) -> Said:
        """The same with sizes for ranks of the cascade."""
        mine = {r: n for r, n in sizes.items() if r in self.tile}
        return Said({**self.raw, "tile": {**self.tile, **mine}}, self.place, self.alone) if mine else self


@dataclass(frozen=True)
class SaidGroup:
    """A group: the ways it is given in, as variants of each other. Where nothing of it is open, ``fixed`` is what the
    file gives; ``use`` is its entry, where that is what another file gives."""

    ways: tuple[Said, ...] = ()
    fixed: Candidates | None = None
    use: Mapping[str, Any] | None = None


def checked_head(doc: Document) -> MappingSpec:
    """The fields of a file beside those of its groups; InputError for a field that there is not."""
    data = {k: v for k, v in doc.data.items() if k not in ("bind", "keep", "variants", *SECTIONS)}
    return validate(MappingSpec, data, document_place(doc))


def said_groups(doc: Document, cascade: Cascade, arch: Architecture) -> list[SaidGroup]:
    """The groups of a file."""
    entries = raw_groups(doc)
    found: list[SaidGroup] = []
    for path, raw in entries:
        if "use" in raw:
            found += _used(doc, raw, path[-1], cascade, arch)
        else:
            found.append(_ways(doc, raw, path, cascade, arch, alone=len(entries) == 1))
    return found


def _ways(
    doc: Document, raw: dict[str, Any], path: tuple[Any, ...], cascade: Cascade, arch: Architecture, *, alone: bool
) -> SaidGroup:
    base = {k: v for k, v in raw.items() if k != "variants"}
    origins = origins_of(doc, base, path, {})
    base = _with_bind(doc, base, path)
    variants = raw.get("variants")
    if variants is None:
        ways = [Said(base, place_in(doc, path, origins), alone)]
    elif not isinstance(variants, list) or not variants or not all(isinstance(v, dict) for v in variants):
        raise InputError("'variants' is not a list of mappings", doc.where(*path, "variants"))
    else:
        ways = []
        for i, over in enumerate(variants):
            here = (*path, "variants", i)
            place = place_in(doc, path, origins_of(doc, over, here, origins))
            ways.append(Said(overlay(base, _with_bind(doc, over, here)), place, alone))
    if all(way.given for way in ways):
        return SaidGroup(tuple(ways), candidates_of(doc, raw, path, cascade, arch))
    for way in ways:
        _check(way, cascade, arch)
    return SaidGroup(tuple(ways))


def _used(doc: Document, raw: dict[str, Any], i: int, cascade: Cascade, arch: Architecture) -> list[SaidGroup]:
    """The groups of another file, that a file written from here finds again."""
    groups = used_groups(doc, raw, i, cascade, arch, (doc.file,), [])
    name = called("mappings", raw["use"], doc.file)
    entries = [{"use": name, "only": list(c.groups[0].bindings)} for c in groups]
    return [SaidGroup(fixed=c, use=entry) for c, entry in zip(groups, entries, strict=True)]


def _with_bind(doc: Document, raw: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    bind = raw.get("bind", AUTO)
    return raw if bind == AUTO else {**raw, "bind": split_bind(doc, bind, (*path, "bind"))}


def _check(said: Said, cascade: Cascade, arch: Architecture) -> None:
    """InputError, with its place, for a name that there is not."""
    validate(GroupSpec, _closed(said.raw), said.place)
    scene = Scene(cascade, arch, {e.name: e for e in cascade.einsums}, {})
    loops = {*cascade.ranks, *(p for ps in said.parts.values() for p in ps)}
    for rank in said.tile:
        _known(said, "rank", rank, loops, "tile", rank)
    for i, rank in enumerate(_listed(said.raw.get("loops"))):
        _known(said, "rank", rank, loops, "loops", i)
    for name, bind in said.bind.items():
        _known(said, "Einsum", name, scene.einsums, "bind", name)
        if isinstance(bind, Mapping):
            _check_bind(said, name, bind, arch, loops)
    members = scene.einsums if said.alone or not said.bind else said.bind
    _check_keep(said, {t for n in members for t in scene.used(n)}, arch, loops)
    for i, line in enumerate(_listed(said.raw.get("schedule"))):
        for k, name in enumerate(line):
            _known(said, "Einsum", name, members, "schedule", i, k)
    for field in ("budget", "reserve"):
        for level in said.raw.get(field, {}):
            _known(said, "level", level, arch.levels, field, level)
    for level, text in said.raw.get("budget", {}).items():
        try:
            quantity(text, "bytes")
        except ValueError as error:
            raise InputError(f"budget of {level}: {error}", said.where("budget", level)) from None


def _check_bind(said: Said, name: str, bind: Mapping[str, Any], arch: Architecture, loops: set[str]) -> None:
    unit, spatial = bind.get("unit", AUTO), bind.get("spatial", AUTO)
    if unit != AUTO:
        _known(said, "unit", unit, arch.units, "bind", name, "unit")
    every = arch.units.values() if unit == AUTO else [arch.units[unit]]
    for dimension, ranks in spatial.items() if spatial != AUTO else ():
        _known(said, "dimension", dimension, {d for u in every for d in u.shape}, "bind", name, "spatial", dimension)
        for rank in [ranks] if isinstance(ranks, str) else ranks:
            _known(said, "rank", rank, loops, "bind", name, "spatial", dimension)
    for field in ("loops", "temporal"):
        for rank in _listed(bind.get(field)):
            _known(said, "rank", rank, loops, "bind", name, field)


def _check_keep(said: Said, used: set[str], arch: Architecture, loops: set[str]) -> None:
    for level, held in (said.keep or {}).items():
        _known(said, "level", level, arch.levels, "keep", level)
        for tensor, loop in held.items() if held != AUTO else ():
            _known(said, "tensor", tensor, used, "keep", level, tensor)
            if loop not in (AUTO, ALL):
                _known(said, "loop", loop, loops, "keep", level, tensor)


def _known(said: Said, kind: str, name: Any, valid: Iterable[str], *path: str | int) -> None:
    if name not in valid:
        raise unknown(kind, str(name), valid, said.where(*path, key=True))


def _listed(value: Any) -> list[Any]:
    return [] if value in (None, AUTO) else value


def _closed(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A group with something of the right kind in place of what is open."""
    found = {k: v for k, v in raw.items() if k not in SECTIONS or v != AUTO}
    if isinstance(tile := found.get("tile"), Mapping):
        found["tile"] = {k: "any" if v == AUTO else v for k, v in tile.items()}
    if isinstance(keep := found.get("keep"), Mapping):
        found["keep"] = {
            level: {} if held == AUTO else {t: ALL if k == AUTO else k for t, k in held.items()}
            if isinstance(held, Mapping) else held
            for level, held in keep.items()
        }  # fmt: skip
    if isinstance(bind := found.get("bind"), Mapping):
        found["bind"] = {
            n: {"unit": AUTO, **{k: v for k, v in said.items() if v != AUTO}} if isinstance(said, Mapping) else said
            for n, said in bind.items() if said != AUTO
        }  # fmt: skip
    return found


__all__ = ["Said", "SaidGroup", "checked_head", "said_groups"]
