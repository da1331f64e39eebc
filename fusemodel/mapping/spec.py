"""Mapping files (DESIGN section 6): what a user may write, and the frozen form it is turned into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from fusemodel.arch import Architecture
from fusemodel.cascade.ir import Cascade, Expr
from fusemodel.errors import NOWHERE, Where
from fusemodel.specfile import Spec

#: ``under: all``: the tile never changes; the whole tensor is resident.
ALL = "all"


class KeepSpec(Spec):
    """A tile of a tensor held at a level, changing when the loop ``under`` or one outside it steps.

    ``spill`` lets the part that does not fit live one level further out (or states that fraction); tensors with the
    same ``share`` occupy the same space one after another; ``copies: 2`` is double buffering.
    """

    under: str
    spill: bool | float = False
    copies: int = Field(default=1, ge=1, le=64)
    share: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_loop(cls, data: Any) -> Any:
        """``p2`` is short for ``{under: p2}``."""
        if not isinstance(data, (str, dict)):
            raise ValueError(f"{data!r} is no loop; expected its name, such as `p2`, or `{{under: p2, ...}}`")
        return {"under": data} if isinstance(data, str) else data

    @field_validator("spill")
    @classmethod
    def _fraction(cls, value: bool | float) -> bool | float:
        if not isinstance(value, bool) and not 0 <= value <= 1:
            raise ValueError(f"{value} is out of range; expected a fraction from 0 to 1, true or false")
        return value


class BindSpec(Spec):
    """Where an Einsum runs. ``spatial`` gives each dimension of the unit a rank, or several that fill it together;
    ``loops`` (or ``temporal``) are the loops inside the shared ones; ``pipelined`` chains the operations of a point,
    so that a point takes the cycles of the longest one instead of their sum."""

    unit: str
    spatial: dict[str, list[str]] = Field({})
    loops: list[str] = Field([])
    pipelined: bool = False

    @model_validator(mode="before")
    @classmethod
    def _one_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and "temporal" in data and "loops" not in data:
            data = {**data, "loops": data["temporal"]}
            del data["temporal"]
        return data

    @field_validator("spatial", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return {k: [v] if isinstance(v, str) else v for k, v in value.items()} if isinstance(value, dict) else value


class GroupSpec(Spec):
    """Einsums that share loops. Groups run one after another.

    The steps of ``grid``, the outermost loops, are blocks that are handed out to the instances of the machine, in
    ``order``: ``static``, each instance the same number, ``dynamic``, to whichever is free, the longest first, or
    ``listed``, to whichever is free, as the grid lists them: half of the longest is waited for at the end, in the
    time it takes beside the others that are ``resident``, as many as are on an instance together. Steps of the shared
    loops in which the Einsum ``skip`` has no point are skipped. ``launch``, ``prologue`` and ``step`` name overheads
    of the machine: of the group, of each block, and what each step of the shared loops waits, which other resident
    blocks hide. ``persistent``: blocks begin and end beside the work and traffic of others, so that prologues, but
    for the first, add to a group's time only what is beyond those. ``warm``: caches hold what they could keep from a
    run of the same before. ``fill``: nothing else is done while a block loads its first tiles. ``multicast``: tiles
    of a tensor are read once for so many blocks. A stage takes no less than its Einsums' traffic at levels that are
    ``exposed``; that of others hides behind all stages.
    """

    name: str = ""
    use: str | None = None
    tile: dict[str, list[str] | list[int] | int | str] = Field({})
    loops: list[str] = Field([])
    keep: dict[str, dict[str, KeepSpec]] = Field({})
    reserve: dict[str, str | int] = Field({})
    budget: dict[str, str] = Field({})
    bind: dict[str, BindSpec] = Field({})
    schedule: list[list[str]] | None = None
    interleave: bool = True
    grid: list[str] = Field([])
    order: Literal["static", "dynamic", "listed"] = "static"
    resident: int = Field(default=1, ge=1, le=64)
    skip: str | None = None
    launch: str | None = None
    prologue: str | None = None
    step: str | None = None
    persistent: bool = False
    warm: bool = False
    fill: bool = False
    multicast: dict[str, Annotated[int, Field(ge=1, le=64)]] = Field({})
    exposed: list[str] = Field([])
    minimise: list[Literal["latency", "energy", "edp", "dram"]] = Field([])
    variants: list[Any] = Field([])

    @field_validator("minimise", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class MappingSpec(GroupSpec):
    """A whole mapping file; one without ``groups`` is a single group. ``variants`` lay other values over a group.
    ``split`` divides ranks into parts as a cascade does, so that the inner part need not divide the whole: the last
    tile is ragged."""

    about: str = ""
    source: str = ""
    cascade: str
    arch: str
    split: dict[str, list[str]] = Field({})
    groups: list[Any] | None = None


@dataclass(frozen=True, slots=True)
class Keep:
    """A resident tile. ``under`` is a loop of the group, a loop of some bindings, or :data:`ALL`."""

    level: str
    tensor: str
    under: str
    spill: bool | float = False
    copies: int = 1
    share: str | None = None
    at: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Binding:
    """An Einsum on a unit. ``spatial`` maps dimensions to leaf ranks, ``loops`` are leaf ranks, outermost first;
    ``key`` is the same for Einsums bound together, which share one inner loop nest."""

    einsum: str
    unit: str
    spatial: Mapping[str, tuple[str, ...]]
    loops: tuple[str, ...]
    pipelined: bool
    key: str
    at: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Auto:
    """A tile size to be found: ``max`` is the largest divisor for which everything kept fits, ``any`` each divisor."""

    kind: Literal["max", "any"]


TileSize = Expr | Auto | tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Einsums under shared temporal ``loops``, outermost first. ``parts`` maps a tiled rank to its parts, outermost
    first, and ``sizes`` gives those parts that are fixed, listed or to be found; the outermost is what is left. The
    last tile of a rank may be smaller than the others, except of ``exact`` ones: inner parts that a cascade makes."""

    name: str
    parts: Mapping[str, tuple[str, ...]]
    sizes: Mapping[str, TileSize]
    loops: tuple[str, ...]
    keeps: tuple[Keep, ...]
    reserve: Mapping[str, Expr]
    budget_bytes: Mapping[str, float]
    bindings: Mapping[str, Binding]
    stages: tuple[tuple[str, ...], ...]
    interleave: bool
    variant: str = ""
    grid: tuple[str, ...] = ()
    order: str = "static"
    resident: int = 1
    skip: str | None = None
    launch: str | None = None
    prologue: str | None = None
    step: str | None = None
    persistent: bool = False
    warm: bool = False
    fill: bool = False
    multicast: Mapping[str, int] = field(default_factory=dict)
    exposed: tuple[str, ...] = ()
    exact: frozenset[str] = frozenset()
    places: Mapping[str, Where] = field(default_factory=dict, compare=False)

    def leaves(self, rank: str, cascade: Cascade) -> tuple[str, ...]:
        """The parts a rank is iterated by in this group, outermost first; itself if it is whole."""
        parts = self.parts.get(rank) or cascade.split.get(rank)
        if not parts:
            return (rank,)
        return tuple(leaf for part in parts for leaf in self.leaves(part, cascade))


@dataclass(frozen=True)
class Candidates:
    """The ways one group may be mapped; with an objective the best is taken, else there is just one."""

    groups: tuple[Group, ...]
    minimise: tuple[str, ...]


@dataclass(frozen=True)
class Design:
    """A cascade on an architecture, as groups that run one after another. ``extents`` replaces extents of the cascade
    (a ``tile`` entry for one of its ranks)."""

    name: str
    cascade: Cascade
    arch: Architecture
    groups: tuple[Candidates, ...]
    extents: Mapping[str, Expr] = field(default_factory=dict)
    about: str = ""
    source: str = ""
    file: str = ""
    files: tuple[str, ...] = ()  # every file it was read from

    def _repr_svg_(self) -> str:
        from fusemodel.report.draw import design_svg

        return design_svg(self)

    def place(self, rank: str) -> Where:
        """Where the extent of a rank is replaced."""
        every = (g.places.get(f"tile.{rank}") for c in self.groups for g in c.groups if rank in g.sizes)
        return next((at for at in every if at), Where(self.file, 1, 1))
