"""Architecture files (DESIGN section 5): what a user may write, with units, and the plain numbers it stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
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


class LevelSpec(Spec):
    """A storage. ``access`` is the width of one access, to which ``read`` and ``write`` energies refer."""

    kind: Literal["dram", "sram", "cache", "registers"] = "sram"
    about: str = ""
    size: Bytes | None = None
    bandwidth: Bandwidth | None = None
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
    """One operation on one processing element, or ``as: 6 mac``: that many of another in sequence."""

    cycles: float = Field(default=1, gt=0, le=MAX_CYCLES, allow_inf_nan=False)
    energy: Energy = 0.0
    area: Area = 0.0
    as_: str | None = Field(default=None, alias="as")


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
    name: str = ""
    about: str = ""
    source: str = ""
    clock: Frequency
    word: Bytes
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


@dataclass(frozen=True, slots=True)
class Op:
    """An operation: cycles it holds a processing element, energy of each, register accesses it makes; ``base`` is the
    one that it is built from (itself, if none)."""

    name: str
    cycles: float
    energy_pj: float
    area_um2: float
    register_reads: float
    register_writes: float
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
    return Op(
        op, sum(p.cycles for p in found), sum(p.energy_pj for p in found), 0.0,
        sum(p.register_reads for p in found), sum(p.register_writes for p in found),
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
    return Architecture(
        name=spec.name or doc.file,
        clock_hz=spec.clock,
        word_bytes=spec.word,
        levels=levels,
        units={n: _build_unit(n, s, doc) for n, s in spec.units.items()},
        about=spec.about,
        source=spec.source,
        file=doc.file,
    )


def _level(name: str, spec: LevelSpec, word_bytes: float) -> Level:
    access = spec.access or word_bytes
    return Level(name, spec.kind, spec.size, spec.bandwidth, access, spec.read, spec.write, spec.area)


def _build_unit(name: str, spec: UnitSpec, doc: Document) -> Unit:
    shape = dict(zip(DIMENSIONS, spec.shape, strict=False))
    for i, dimension in enumerate(spec.reduce):
        if dimension not in shape:
            raise unknown("dimension", dimension, shape, doc.where("units", name, "reduce", i))
    ops = {op: _op(op, spec, doc, ("units", name, "ops"), ()) for op in spec.ops}
    regs = spec.registers
    registers = Registers(regs.words, regs.read, regs.write, regs.area, regs.counted) if regs else None
    return Unit(name, shape, registers, ops, frozenset(spec.reduce))


def _op(name: str, unit: UnitSpec, doc: Document, path: tuple[str, ...], chain: tuple[str, ...]) -> Op:
    spec = unit.ops[name]
    if spec.as_ is None:
        return Op(name, spec.cycles, spec.energy, spec.area, _OPERANDS.get(name, 1), 1, name)
    where = doc.where(*path, name, "as")
    found = re.fullmatch(r"\s*(?:(\d+(?:\.\d+)?)\s+)?([A-Za-z_]\w*)\s*", spec.as_)
    if not found:
        raise InputError(f"{spec.as_!r} is not a number of operations", where, expected="such as `6 mac`")
    count, base = float(found[1] or 1), found[2]
    if not 0 < count <= MAX_CYCLES:
        raise InputError(
            f"{spec.as_!r} is not a number of operations", where, expected=f"more than 0, up to {MAX_CYCLES:g}"
        )
    for field in ("cycles", "energy"):
        if field in spec.model_fields_set:
            raise InputError(f"{field!r} stands beside 'as', which says it", doc.where_key(*path, name, field),
                             expected="one of the two")  # fmt: skip
    if base not in unit.ops:
        raise unknown("operation", base, [o for o in unit.ops if o != name], where)
    if base in (name, *chain):
        raise InputError(f"operation {name!r} is defined by itself", where)
    inner = _op(base, unit, doc, path, (*chain, name))
    return Op(
        name, count * inner.cycles, count * inner.energy_pj, spec.area,
        count * inner.register_reads, count * inner.register_writes, inner.base,
    )  # fmt: skip
