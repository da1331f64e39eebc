"""Architecture files (DESIGN section 5): what a user may write, with units, and the plain numbers it stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from fusemodel.arch.units import quantity
from fusemodel.errors import InputError, Where, unknown
from fusemodel.library import check_kind, find, modified_ns
from fusemodel.specfile import Spec, document_place, validate
from fusemodel.yamlfile import Document, parse_yaml, read_yaml

DIMENSIONS: tuple[str, ...] = ("x", "y", "z", "w")
MAX_CYCLES = 1e6  # of one operation


def _unit(kind: str, *, positive: bool = True) -> Any:
    return BeforeValidator(lambda v: v if isinstance(v, _Stored) else _Stored(quantity(v, kind, positive=positive)))


class _Stored(float):
    """A number that has been converted already."""


Frequency = Annotated[float, _unit("frequency")]
Bandwidth = Annotated[float, _unit("bandwidth")]
Bytes = Annotated[float, _unit("bytes")]
Energy = Annotated[float, _unit("energy", positive=False)]
Area = Annotated[float, _unit("area", positive=False)]
Time = Annotated[float, _unit("time", positive=False)]
Power = Annotated[float, _unit("power", positive=False)]


#: Of a rate or size; above 1 where a clock runs beyond the one quoted.
Fraction = Annotated[float, Field(gt=0, le=4, allow_inf_nan=False)]
Cycles = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class LevelSpec(Spec):
    """A storage. ``access`` is the width of one access, to which ``read`` and ``write`` energies refer.

    ``per: instance`` says that each instance has one, of this size and bandwidth. ``port`` is the most that one
    instance draws from a level they share. A ``cache`` keeps what passes through it, without being told.
    """

    kind: Literal["dram", "sram", "cache", "registers"] = "sram"
    about: str = ""
    size: Bytes | None = None
    bandwidth: Bandwidth | None = None
    port: Bandwidth | None = None
    per: Literal["machine", "instance"] = "machine"
    access: Bytes | None = None
    read: Energy = 0.0
    write: Energy = 0.0
    area: Area = 0.0


class RegistersSpec(Spec):
    """The register file of one processing element; ``counted: false`` leaves its accesses out of ``energy_j``."""

    words: int = Field(gt=0, le=2**20)
    read: Energy = 0.0
    write: Energy = 0.0
    area: Area = 0.0
    counted: bool = True


class OpSpec(Spec):
    """One operation on one processing element, or ``as: 6 mac``: that many of another in sequence; or ``on: UNIT``:
    handed to another unit, which is busy instead of this one."""

    cycles: float = Field(default=1, gt=0, le=MAX_CYCLES, allow_inf_nan=False)
    energy: Energy = 0.0
    area: Area = 0.0
    as_: str | None = Field(default=None, alias="as")
    on: str | None = None


class UnitSpec(Spec):
    """A compute array. ``reduce`` names the dimensions along which it can sum (or max) spatially."""

    about: str = ""
    shape: list[Annotated[int, Field(gt=0, le=2**20)]] = Field(min_length=1, max_length=len(DIMENSIONS))
    registers: RegistersSpec | None = None
    ops: dict[str, OpSpec]
    reduce: list[str] = Field([])

    @field_validator("ops", mode="before")
    @classmethod
    def _short_ops(cls, value: Any) -> Any:
        """``exp: 6 mac`` and ``mac:`` are short for ``exp: {as: 6 mac}`` and ``mac: {}``."""
        if not isinstance(value, dict):
            return value
        return {k: {} if v is None else {"as": v} if isinstance(v, str) else v for k, v in value.items()}


class ArchSpec(Spec):
    """A machine: ``instances`` of all its units and of the levels that are ``per: instance``.

    ``achieved`` gives, by unit or level, the part of its rate that is reached (``LEVEL.size``: of its size,
    ``LEVEL.port``: of its port); ``overlap`` the part of a stage that hides behind the other stages of a schedule,
    ``tail`` the part of the last, partly filled wave of blocks that is waited for; ``overheads`` (and
    ``overhead_cycles``, which scale with the clock) are times that mappings name. ``idle`` is the power at
    rest, drawn for as long as anything runs.
    """

    name: str = ""
    about: str = ""
    source: str = ""
    aliases: list[str] = Field([])
    clock: Frequency
    word: Bytes
    instances: int = Field(default=1, gt=0, le=2**20)
    achieved: dict[str, Fraction] = Field({})
    overlap: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False)
    tail: float = Field(default=1.0, ge=0, le=1, allow_inf_nan=False)
    overheads: dict[str, Time] = Field({})
    overhead_cycles: dict[str, Cycles] = Field({})
    idle: Power = 0.0
    levels: dict[str, LevelSpec] = Field(min_length=1)
    units: dict[str, UnitSpec] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Level:
    """A storage, in plain numbers; energies per access of ``access_bytes``."""

    name: str
    kind: str
    size_bytes: float | None
    bandwidth_bytes_per_s: float | None
    access_bytes: float
    read_pj: float
    write_pj: float
    area_um2: float
    port_bytes_per_s: float | None = None
    per_instance: bool = False


@dataclass(frozen=True, slots=True)
class Op:
    """An operation: cycles it holds a processing element, energy of each, register accesses it makes; ``beside`` has
    the cycles it takes of one processing element of other units; ``base`` is the one that it is built from (itself, if
    none)."""

    name: str
    cycles: float
    energy_pj: float
    area_um2: float
    register_reads: float
    register_writes: float
    beside: Mapping[str, float] = field(default_factory=dict)
    base: str = ""


@dataclass(frozen=True, slots=True)
class Registers:
    words: int
    read_pj: float
    write_pj: float
    area_um2: float
    counted: bool


@dataclass(frozen=True, slots=True)
class Unit:
    """A compute array of ``shape`` along dimensions x, y, ..."""

    name: str
    shape: Mapping[str, int]
    registers: Registers | None
    ops: Mapping[str, Op]
    reduce: frozenset[str]

    @property
    def size(self) -> int:
        """Processing elements."""
        total = 1
        for n in self.shape.values():
            total *= n
        return total


@dataclass(frozen=True)
class Architecture:
    """A machine: levels outermost first, and units."""

    name: str
    clock_hz: float
    word_bytes: float
    levels: Mapping[str, Level]
    units: Mapping[str, Unit]
    about: str = ""
    source: str = ""
    file: str = ""
    instances: int = 1
    aliases: tuple[str, ...] = ()
    achieved: Mapping[str, float] = field(default_factory=dict)
    overlap: float = 0.0
    tail: float = 1.0
    overheads_s: Mapping[str, float] = field(default_factory=dict)
    cycles_of: Mapping[str, float] = field(default_factory=dict)  # of those overheads that scale with the clock
    idle_w: float = 0.0

    def tuned(
        self, achieved: Mapping[str, float], overheads_s: Mapping[str, float], overlap: float | None = None,
        tail: float | None = None,
    ) -> Architecture:  # fmt: skip
        """The same machine with other efficiencies, by the names it has them under."""
        return replace(
            self, achieved={**self.achieved, **achieved}, overheads_s={**self.overheads_s, **overheads_s},
            overlap=self.overlap if overlap is None else overlap, tail=self.tail if tail is None else tail,
        )  # fmt: skip

    @property
    def outermost(self) -> str:
        return next(iter(self.levels))

    def area_um2(self) -> dict[str, float]:
        """Area of each component; what a file gives no area for counts as zero."""
        areas = {n: level.area_um2 for n, level in self.levels.items()}
        for name, unit in self.units.items():
            element = sum(op.area_um2 for op in unit.ops.values())
            element += unit.registers.area_um2 if unit.registers else 0.0
            areas[name] = unit.size * element
        return areas


#: Operations another one can stand in for, tried in order: a multiplier-adder multiplies and adds, and so on.
STAND_INS: dict[str, tuple[str, ...]] = {
    "mul": ("mac",), "add": ("mac",), "sub": ("add", "mac"), "min": ("max",), "relu": ("max",), "abs": ("max",),
    "compare": ("max", "add", "mac"), "select": ("max", "add", "mac"), "logic": ("compare", "max", "add", "mac"),
    "exp2": ("exp",), "recip": ("divide",), "copy": ("max", "add", "mac"),
}  # fmt: skip

#: Operations that others make in sequence, where a unit has neither them nor a stand-in: 1 / (1 + exp(-x)) and so on.
SEQUENCES: dict[str, tuple[str, ...]] = {
    "sigmoid": ("exp", "add", "recip"), "silu": ("sigmoid", "mul"), "tanh": ("exp", "add", "sub", "divide"),
    "gelu": ("mul", "mac", "mul", "tanh", "mac", "mul"), "elu": ("exp", "sub", "select"),
    "softplus": ("exp", "add", "log"), "pow": ("log", "mul", "exp"), "rsqrt": ("sqrt", "recip"), "floor": ("add",),
    "round": ("add",),
}  # fmt: skip

_OPERANDS = {"mac": 3, **dict.fromkeys(("mul", "add", "sub", "max", "min", "divide", "compare", "logic", "pow"), 2)}


def find_op(unit: Unit, op: str) -> Op | None:
    """The operation of a unit that computes ``op``: its own, a stand-in, or several others in sequence; None if it has
    none of these."""
    for name in (op, *STAND_INS.get(op, ())):
        if name in unit.ops:
            return unit.ops[name]
    parts = [find_op(unit, part) for part in SEQUENCES.get(op, ())]
    found = [p for p in parts if p]
    if not found or len(found) < len(parts):
        return None
    beside: dict[str, float] = {}
    for part in found:
        for name, cycles in part.beside.items():
            beside[name] = beside.get(name, 0.0) + cycles
    return Op(
        op, sum(p.cycles for p in found), sum(p.energy_pj for p in found), 0.0,
        sum(p.register_reads for p in found), sum(p.register_writes for p in found), beside,
    )  # fmt: skip


def load_architecture(name: str, *, beside: str = "", where: Where | None = None) -> Architecture:
    """An architecture by library name or path."""
    path = find("archs", name, beside=beside, where=where)
    return _cached(str(path), modified_ns(path))


@lru_cache(maxsize=64)
def _cached(path: str, _stamp: int) -> Architecture:
    return build_architecture(read_yaml(path))


def parse_architecture(text: str, file: str = "<text>") -> Architecture:
    """An architecture from the text of a file."""
    return build_architecture(parse_yaml(text, file))


def build_architecture(doc: Document) -> Architecture:
    """An architecture from a loaded file; InputError with a place for anything wrong."""
    check_kind(doc, "archs")
    spec = validate(ArchSpec, doc.data, document_place(doc))
    if clash := spec.levels.keys() & spec.units.keys():
        name = min(clash)
        raise InputError(f"{name!r} names a level and a unit", doc.where_key("units", name))
    levels = {n: _level(n, s, spec.word) for n, s in spec.levels.items()}
    for name in list(levels)[1:]:
        if levels[name].size_bytes is None:
            raise InputError(f"level {name!r} has no size", doc.where("levels", name), expected="`size: 16 MiB`")
    units = {n: _build_unit(n, spec, doc) for n in spec.units}
    if twice := spec.overheads.keys() & spec.overhead_cycles.keys():
        raise InputError(f"overhead {min(twice)!r} stands twice", doc.where_key("overhead_cycles", min(twice)))
    names = [*levels, *units, *(f"{n}.{part}" for n in levels for part in ("size", "port"))]
    for name in spec.achieved:
        if name not in names:
            raise unknown("unit or level", name, names, doc.where_key("achieved", name))
    return Architecture(
        name=spec.name or doc.file,
        clock_hz=spec.clock,
        word_bytes=spec.word,
        levels=levels,
        units=units,
        about=spec.about,
        source=spec.source,
        file=doc.file,
        instances=spec.instances,
        aliases=tuple(spec.aliases),
        achieved=spec.achieved,
        overlap=spec.overlap,
        tail=spec.tail,
        overheads_s={**spec.overheads, **{n: c / spec.clock for n, c in spec.overhead_cycles.items()}},
        cycles_of=spec.overhead_cycles,
        idle_w=spec.idle,
    )


def _level(name: str, spec: LevelSpec, word_bytes: float) -> Level:
    access = spec.access or word_bytes
    return Level(
        name, spec.kind, spec.size, spec.bandwidth, access, spec.read, spec.write, spec.area, spec.port,
        spec.per == "instance",
    )  # fmt: skip


def _build_unit(name: str, arch: ArchSpec, doc: Document) -> Unit:
    spec = arch.units[name]
    shape = dict(zip(DIMENSIONS, spec.shape, strict=False))
    for i, dimension in enumerate(spec.reduce):
        if dimension not in shape:
            raise unknown("dimension", dimension, shape, doc.where("units", name, "reduce", i))
    ops = {op: _op(op, spec, doc, ("units", name, "ops"), ()) for op in spec.ops}
    for op, entry in spec.ops.items():
        if entry.on is not None:
            ops[op] = _handed_over(op, entry.on, name, arch, doc)
    regs = spec.registers
    registers = Registers(regs.words, regs.read, regs.write, regs.area, regs.counted) if regs else None
    return Unit(name, shape, registers, ops, frozenset(spec.reduce))


def _handed_over(op: str, other: str, name: str, arch: ArchSpec, doc: Document) -> Op:
    """An operation of a unit that another one does in its place."""
    where = doc.where("units", name, "ops", op, "on")
    if other not in arch.units or other == name:
        raise unknown("unit", other, [n for n in arch.units if n != name], where)
    if op not in arch.units[other].ops or arch.units[other].ops[op].on is not None:
        own = [o for o, entry in arch.units[other].ops.items() if entry.on is None]
        raise unknown(f"operation of {other!r}:", op, own, where)
    done = _op(op, arch.units[other], doc, ("units", other, "ops"), ())
    return Op(op, 0.0, done.energy_pj, 0.0, done.register_reads, done.register_writes, {other: done.cycles})


def _op(name: str, unit: UnitSpec, doc: Document, path: tuple[str, ...], chain: tuple[str, ...]) -> Op:
    spec = unit.ops[name]
    if spec.as_ is None:
        return Op(name, spec.cycles, spec.energy, spec.area, _OPERANDS.get(name, 1), 1, base=name)
    where = doc.where(*path, name, "as")
    found = re.fullmatch(r"\s*(?:(\d+(?:\.\d+)?)\s+)?([A-Za-z_]\w*)\s*", spec.as_)
    if not found:
        raise InputError(f"{spec.as_!r} is not a number of operations", where, expected="such as `6 mac`")
    count, base = float(found[1] or 1), found[2]
    if not 0 < count <= MAX_CYCLES:
        raise InputError(
            f"{spec.as_!r} is not a number of operations", where, expected=f"more than 0, up to {MAX_CYCLES:g}"
        )
    for said in ("cycles", "energy", "on"):
        if said in spec.model_fields_set:
            raise InputError(f"{said!r} stands beside 'as', which says it", doc.where_key(*path, name, said),
                             expected="one of the two")  # fmt: skip
    if base not in unit.ops:
        raise unknown("operation", base, [o for o in unit.ops if o != name], where)
    if base in (name, *chain):
        raise InputError(f"operation {name!r} is defined by itself", where)
    inner = _op(base, unit, doc, path, (*chain, name))
    return Op(
        name, count * inner.cycles, count * inner.energy_pj, spec.area,
        count * inner.register_reads, count * inner.register_writes, base=inner.base,
    )  # fmt: skip
