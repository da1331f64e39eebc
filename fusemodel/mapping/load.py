"""Mapping files to checked designs: variants laid over their base, names expanded, everything checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fusemodel.arch import Architecture, load_architecture
from fusemodel.arch.units import quantity
from fusemodel.cascade import Cascade, load_cascade
from fusemodel.cascade.ir import Expr, Number
from fusemodel.cascade.parse import Names, parse_expression
from fusemodel.errors import InputError, Where, listed, unknown
from fusemodel.library import check_kind, find, modified_ns
from fusemodel.mapping.blocks import checked_grid, with_splits
from fusemodel.mapping.check import check_design, check_group
from fusemodel.mapping.partial import is_partial
from fusemodel.mapping.spec import (
    Auto,
    Binding,
    BindSpec,
    Candidates,
    Design,
    Group,
    GroupSpec,
    Keep,
    MappingSpec,
    TileSize,
)
from fusemodel.specfile import Place, document_place, validate
from fusemodel.yamlfile import Document, parse_yaml, read_yaml

_MERGED = ("tile", "keep", "bind", "reserve", "budget")
_DEFAULTS = ("budget", "interleave", "minimise", "warm")
MAX_VARIANTS = 1000


class PartialMapping(InputError):
    """A mapping file of which parts are open, where a complete one is needed; ``doc`` is what was read."""

    def __init__(self, doc: Document) -> None:
        super().__init__("parts of this mapping are to be found (`auto`)", doc.where(),
                         expected="a complete mapping; `fusemodel eval` completes this one")  # fmt: skip
        self.doc = doc


def load_design(name: str, *, arch: str | None = None) -> Design:
    """A design by the library name or path of its mapping, perhaps on another architecture."""
    path = str(find("mappings", name))
    machine = str(find("archs", arch)) if arch else None
    stamps, design = _LOADED.get((path, machine), ({"": -1}, None))
    if design is None or _stamps(stamps) != stamps:
        design = build_design(read_yaml(path), load_architecture(machine) if machine else None)
        _LOADED[path, machine] = (_stamps(design.files), design)
    return design


#: Designs already built, with the times at which the files they came from were last changed.
_LOADED: dict[tuple[str, str | None], tuple[dict[str, int], Design]] = {}


def _stamps(files: Iterable[str]) -> dict[str, int]:
    return {f: modified_ns(f) for f in files}


def parse_design(text: str, file: str = "<text>", arch: Architecture | None = None) -> Design:
    """A design from the text of a mapping file."""
    return build_design(parse_yaml(text, file), arch)


def build_design(doc: Document, arch: Architecture | None = None) -> Design:
    """A checked design from a loaded mapping file."""
    check_kind(doc, "mappings")
    if is_partial(doc.data):
        raise PartialMapping(doc)
    top = validate(MappingSpec, _without(doc.data, ("bind", "keep", "variants")), document_place(doc))
    cascade = load_cascade(top.cascade, beside=doc.file, where=doc.where("cascade"))
    cascade = with_splits(cascade, doc, top.split)
    arch = arch or load_architecture(top.arch, beside=doc.file, where=doc.where("arch"))
    files = [doc.file, cascade.file, arch.file]
    groups = tuple(_groups(doc, cascade, arch, (doc.file,), files))
    design = Design(
        top.name or doc.file, cascade, arch, groups, _extent_overrides(groups, cascade), top.about, top.source,
        doc.file, files=tuple(files),
    )  # fmt: skip
    check_design(design)
    return design


def design_of(name: str, cascade: Cascade, arch: Architecture, groups: Sequence[Candidates], about: str = "") -> Design:
    """A checked design from groups (:func:`group_of`) that were not read from a file."""
    design = Design(name, cascade, arch, tuple(groups), _extent_overrides(tuple(groups), cascade), about,
                    file=f"<{name}>")  # fmt: skip
    check_design(design)
    return design


def group_of(fields: Mapping[str, Any], cascade: Cascade, arch: Architecture) -> Group:
    """A checked group from the fields that a file would give it."""
    bind = {n.strip(): key for key in fields.get("bind", {}) for n in key.split(",")}
    apart = {name: fields["bind"][key] for name, key in bind.items()}

    def place(path: tuple[str | int, ...], _key: bool) -> Where:
        steps = [str(step) for step in path]
        if steps[:1] == ["bind"] and len(steps) > 1:
            steps[1] = bind.get(steps[1], steps[1])
        return Where("/".join(steps))

    return _group({**fields, "bind": apart}, "", cascade, arch, place)


def _without(data: Mapping[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    return {k: v for k, v in data.items() if k not in fields}


def _groups(
    doc: Document,
    cascade: Cascade,
    arch: Architecture,
    chain: tuple[str, ...],
    files: list[str],
    only: list[str] | None = None,
) -> list[Candidates]:
    """The groups of a file; of those, the ones that bind ``only`` some Einsums, when another file asks for them."""
    result: list[Candidates] = []
    for path, raw in raw_groups(doc):
        if only is not None and not (isinstance(raw.get("bind"), dict) and any(n in only for n in raw["bind"])):
            continue
        if "use" in raw:
            result += used_groups(doc, raw, path[-1], cascade, arch, chain, files)
        else:
            result.append(candidates_of(doc, raw, path, cascade, arch))
    return result


def raw_groups(doc: Document) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The groups of a file as they are written, each with its path; one with ``use`` is what another file gives."""
    groups = doc.data.get("groups")
    if groups is None:
        return [((), {k: v for k, v in doc.data.items() if k in GroupSpec.model_fields and k not in ("name", "use")})]
    if not isinstance(groups, list) or not groups:
        raise InputError("'groups' is empty", doc.where("groups"), expected="a list of groups")
    for field in ("bind", "keep", "loops", "schedule", "tile", "reserve", "variants", "use"):
        if field in doc.data:
            raise InputError(f"{field!r} stands beside 'groups'", doc.where_key(field), expected="it inside a group")
    defaults = {k: doc.data[k] for k in _DEFAULTS if k in doc.data}
    found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    for i, raw in enumerate(groups):
        if not isinstance(raw, dict):
            raise InputError("a group is not a mapping", doc.where("groups", i), expected="`bind: ...` and so on")
        found.append((("groups", i), raw if "use" in raw else {**defaults, **raw}))
    return found


def used_groups(
    doc: Document, raw: dict[str, Any], i: int, cascade: Cascade, arch: Architecture, chain: tuple[str, ...],
    files: list[str],
) -> list[Candidates]:  # fmt: skip
    """The groups of another mapping file (``chain``: the files that are being read)."""
    where = doc.where("groups", i, "use")
    if raw.keys() - {"use", "only"} or not isinstance(raw["use"], str):
        raise InputError(
            "a group with 'use' holds nothing else", where, expected="`- {use: NAME, only: [EINSUM, ...]}`"
        )
    only = raw.get("only")
    if only is not None and not (isinstance(only, list) and all(isinstance(n, str) for n in only)):
        raise InputError("'only' is not a list of Einsums", doc.where("groups", i, "only"), expected="`only: [QK, AV]`")
    path = str(find("mappings", raw["use"], beside=doc.file, where=where))
    if path in chain:
        raise InputError(f"{raw['use']!r} uses itself", where)
    files.append(path)
    found = _groups(read_yaml(path), cascade, arch, (*chain, path), files, only=only)
    if not found:
        raise InputError(f"{raw['use']!r} binds none of {listed(only or ())}", where, expected="Einsums of its groups")
    return found


def candidates_of(doc: Document, raw: dict[str, Any], path: tuple[Any, ...], cascade: Cascade, arch: Architecture):
    base = {k: v for k, v in raw.items() if k != "variants"}
    variants = raw.get("variants")
    origins = origins_of(doc, base, path, {})
    base = {**base, "bind": split_bind(doc, base.get("bind"), (*path, "bind"))}
    minimise = validate(GroupSpec, {"minimise": raw.get("minimise", [])}, document_place(doc, *path)).minimise
    if variants is None:
        groups = [_group(base, "", cascade, arch, place_in(doc, path, origins))]
    else:
        if not isinstance(variants, list) or not variants or not all(isinstance(v, dict) for v in variants):
            raise InputError("'variants' is not a list of mappings", doc.where(*path, "variants"))
        if len(variants) > MAX_VARIANTS:
            raise InputError(
                f"{len(variants)} variants", doc.where(*path, "variants"), expected=f"at most {MAX_VARIANTS}"
            )
        groups = []
        for i, over in enumerate(variants):
            here = (*path, "variants", i)
            merged_origins = origins_of(doc, over, here, origins)
            over = {**over, "bind": split_bind(doc, over.get("bind"), (*here, "bind"))}
            merged = overlay(base, over)
            groups.append(
                _group(merged, str(over.get("name", i + 1)), cascade, arch, place_in(doc, path, merged_origins))
            )
    if not minimise:
        if len(groups) > 1:
            raise InputError("variants without an objective", doc.where(*path, "variants"),
                             expected="`minimise: [latency]` or another objective beside them")  # fmt: skip
        _refuse_choices(doc, groups[0])
    return Candidates(tuple(groups), tuple(minimise))


def _refuse_choices(doc: Document, group: Group) -> None:
    for part, size in group.sizes.items():
        if size == Auto("any") or isinstance(size, tuple):
            raise InputError(f"tile {part!r} is to be chosen", group.places.get(f"tile.{part}", Where(doc.file)),
                             expected="`minimise: [latency]` or another objective beside it")  # fmt: skip


Origins = dict[tuple[Any, ...], tuple[Any, ...]]


def split_bind(doc: Document, bind: Any, path: tuple[Any, ...]) -> dict[str, Any]:
    """One entry for each Einsum of ``RM, PRM: {...}``."""
    if bind is None:
        return {}
    if not isinstance(bind, dict):
        raise InputError("'bind' is not a mapping", doc.where(*path), expected="`EINSUM: {unit: ...}`")
    result: dict[str, Any] = {}
    for key, entry in bind.items():
        for name in (n.strip() for n in key.split(",")):
            if name in result:
                raise InputError(f"{name!r} is bound twice", doc.where_key(*path, key))
            result[name] = entry
    return result


def origins_of(doc: Document, raw: dict[str, Any], path: tuple[Any, ...], under: Origins) -> Origins:
    """Where each part of a (merged) group stands in the file, by its path in the group."""
    result = dict(under)
    for field, value in raw.items():
        result[(field,)] = (*path, field)
        if not isinstance(value, dict):
            continue
        for key, inner in value.items():
            for name in (n.strip() for n in key.split(",")) if field == "bind" else (key,):
                result[(field, name)] = (*path, field, key)
                if isinstance(inner, dict):
                    result |= {(field, name, k): (*path, field, key, k) for k in inner}
    return result


def place_in(doc: Document, path: tuple[Any, ...], origins: Origins) -> Place:
    def place(inner: tuple[str | int, ...], key: bool) -> Where:
        for length in range(len(inner), 0, -1):
            if (origin := origins.get(inner[:length])) is not None:
                full = (*origin, *inner[length:])
                return doc.where_key(*full) if key else doc.where(*full)
        return doc.where(*path)

    return place


def overlay(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` laid over ``base``: fields of names are merged, others replaced, and null removes an entry."""
    result = dict(base)
    for field, value in over.items():
        if field in _MERGED and isinstance(value, dict) and isinstance(base.get(field), dict):
            merged = dict(base[field])
            for key, inner in value.items():
                if inner is None:
                    merged.pop(key, None)
                elif field == "keep" and isinstance(inner, dict) and isinstance(merged.get(key), dict):
                    held = {**merged[key], **inner}
                    merged[key] = {t: k for t, k in held.items() if k is not None}
                else:
                    merged[key] = inner
            result[field] = merged
        elif field != "name":
            result[field] = value
    return result


def _group(raw: dict[str, Any], variant: str, cascade: Cascade, arch: Architecture, place: Place) -> Group:
    spec = validate(GroupSpec, raw, place)
    if not spec.bind:
        raise InputError("no Einsum is bound", place((), False), expected="`bind: {EINSUM: {unit: ...}}`")
    parts, sizes = _tiles(spec, cascade, place)
    known = [*cascade.ranks, *(p for ps in parts.values() for p in ps)]
    names = Names(dict.fromkeys(known), extents_only=True)
    budget = {}
    for level, text in spec.budget.items():
        if level not in arch.levels:
            raise unknown("level", level, arch.levels, place(("budget", level), True))
        try:
            budget[level] = quantity(text, "bytes")
        except ValueError as error:
            raise InputError(f"budget of {level}: {error}", place(("budget", level), False)) from None
    reserve, reserve_places = {}, {}
    for level, value in spec.reserve.items():
        if level not in arch.levels:
            raise unknown("level", level, arch.levels, place(("reserve", level), True))
        reserve[level] = _size(value, names, place(("reserve", level), False))
        reserve_places[f"reserve.{level}"] = place(("reserve", level), False)
    keeps = []
    for level, held in spec.keep.items():
        if level not in arch.levels:
            raise unknown("level", level, arch.levels, place(("keep", level), True))
        for tensor, k in held.items():
            at = place(("keep", level, tensor), True)
            keeps.append(Keep(level, tensor, k.under, k.spill, k.copies, k.share, at))
    bindings = {}
    shell = Group("", parts, sizes, (), (), {}, {}, {}, (), True)
    for name, bind in spec.bind.items():
        bindings[name] = _binding(name, bind, shell, cascade, arch, place)
    loops = _expand(spec.loops, shell, cascade, place, ("loops",))
    grid = checked_grid(spec, loops, _expand(spec.grid, shell, cascade, place, ("grid",)), cascade, arch, place)
    stages = spec.schedule if spec.schedule is not None else [list(bindings)]
    places = {f"tile.{p}": place(("tile", p), False) for p in spec.tile} | {"loops": place(("loops",), False)}
    places |= {"schedule": place(("schedule",), False), "keep": place(("keep",), False), "": place((), False)}
    places |= {"bind": place(("bind",), False), "grid": place(("grid",), False), "launch": place(("launch",), False)}
    places |= reserve_places
    places |= {f"schedule.{i}": place(("schedule", i), False) for i in range(len(stages))}
    group = Group(
        name=spec.name or "+".join(bindings),
        parts=parts, sizes=sizes, loops=loops, keeps=tuple(keeps), reserve=reserve, budget_bytes=budget,
        bindings=bindings, stages=tuple(tuple(s) for s in stages), interleave=spec.interleave, variant=variant,
        grid=grid, order=spec.order, resident=spec.resident, skip=spec.skip, launch=spec.launch,
        prologue=spec.prologue, step=spec.step, persistent=spec.persistent, warm=spec.warm, fill=spec.fill,
        multicast=spec.multicast, exposed=tuple(spec.exposed), exact=frozenset(i for _, i in cascade.split.values()),
        places=places,
    )  # fmt: skip
    check_group(group, cascade, arch)
    return group


def _size(value: Any, names: Names, where: Where) -> Expr:
    if isinstance(value, int) and not isinstance(value, bool):
        return Number(value)
    return parse_expression(str(value), names, where)


def _tiles(spec: GroupSpec, cascade: Cascade, place: Place) -> tuple[dict[str, tuple[str, ...]], dict[str, TileSize]]:
    parts: dict[str, tuple[str, ...]] = {}
    for rank, value in spec.tile.items():
        if isinstance(value, list) and value and isinstance(value[0], str):
            where = place(("tile", rank), False)
            if rank in cascade.split:
                pair = ", ".join(cascade.split[rank])
                raise InputError(f"rank {rank!r} is split by the cascade already", where, expected=f"tiles of {pair}")
            for part in value:
                taken = (
                    part in cascade.ranks
                    or any(part in ps for ps in parts.values())
                    or [*map(str, value)].count(str(part)) > 1
                )
                if taken or not str(part).isidentifier() or part != str(part).lower() or part == "all":
                    raise InputError(
                        f"{part!r} cannot name a part of {rank!r}", where, expected="a new lower-case name"
                    )
            parts[rank] = tuple(str(p) for p in value)
    all_parts = [p for ps in parts.values() for p in ps]
    known = Names(dict.fromkeys([*cascade.ranks, *all_parts]))
    sizes: dict[str, TileSize] = {}
    for name, value in spec.tile.items():
        if name not in cascade.ranks and name not in all_parts:
            raise unknown("rank", name, [*cascade.ranks, *all_parts], place(("tile", name), True))
        if name not in parts:
            sizes[name] = _tile_size(name, value, known, place(("tile", name), False))
    for rank, ps in parts.items():
        for part in ps[1:]:
            if part not in sizes and part not in parts:
                raise InputError(f"part {part!r} of {rank!r} has no size", place(("tile", rank), False),
                                 expected=f"`{part}: 256`, `{part}: max` or an expression")  # fmt: skip
        if isinstance(sizes.get(ps[0]), (Auto, tuple)):
            raise InputError(f"the outermost part {ps[0]!r} is what the others leave", place(("tile", ps[0]), False),
                             expected="no entry for it")  # fmt: skip
    return parts, sizes


def _tile_size(name: str, value: Any, names: Names, where: Where) -> TileSize:
    if value in ("max", "any"):
        return Auto(value)
    if isinstance(value, list):
        if not value or not all(isinstance(v, int) and not isinstance(v, bool) and 0 < v <= 2**40 for v in value):
            raise InputError(f"tile {name!r} has no sizes to choose from", where, expected="a list such as [64, 128]")
        return tuple(dict.fromkeys(value))
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise InputError(f"tile {name!r} is {value!r}", where, expected="a number, an expression, `max` or `any`")
    return _size(value, Names(dict.fromkeys(names.ranks), extents_only=True), where)


def _binding(name: str, spec: BindSpec, shell: Group, cascade: Cascade, arch: Architecture, place: Place) -> Binding:
    at = place(("bind", name), True)
    if name not in {e.name for e in cascade.einsums}:
        raise unknown("Einsum", name, dict.fromkeys(e.name for e in cascade.einsums), at)
    unit = arch.units.get(spec.unit)
    if unit is None:
        raise unknown("unit", spec.unit, arch.units, place(("bind", name, "unit"), False))
    spatial = {}
    for dimension, ranks in spec.spatial.items():
        if dimension not in unit.shape:
            raise unknown("dimension", dimension, unit.shape, place(("bind", name, "spatial", dimension), True))
        spatial[dimension] = _expand(ranks, shell, cascade, place, ("bind", name, "spatial", dimension))
    loops = _expand(spec.loops, shell, cascade, place, ("bind", name, "loops"))
    key = str(place(("bind", name), True))
    return Binding(name, spec.unit, spatial, loops, spec.pipelined, key, at)


def _expand(ranks: list[str], shell: Group, cascade: Cascade, place: Place, path: tuple[str, ...]) -> tuple[str, ...]:
    parts = {p for ps in shell.parts.values() for p in ps}
    result: list[str] = []
    for i, rank in enumerate(ranks):
        if rank not in cascade.ranks and rank not in parts:
            raise unknown("rank", rank, [*cascade.ranks, *parts], place((*path, i), False))
        for leaf in shell.leaves(rank, cascade):
            if leaf in result:
                raise InputError(f"rank {leaf!r} stands twice", place((*path, i), False))
            result.append(leaf)
    return tuple(result)


def _extent_overrides(groups: tuple[Candidates, ...], cascade: Cascade) -> dict[str, Expr]:
    result: dict[str, Expr] = {}
    for candidates in groups:
        for group in candidates.groups:
            for name, size in group.sizes.items():
                if name not in cascade.ranks:
                    continue
                where = group.places.get(f"tile.{name}", Where())
                if isinstance(size, (Auto, tuple)):
                    raise InputError(f"rank {name!r} belongs to the cascade", where, expected="a number")
                if result.setdefault(name, size) != size:
                    raise InputError(f"rank {name!r} has different sizes in two groups", where)
    return result
