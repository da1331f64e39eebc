"""Which mapping predicts a row of a table: rules from a library file, never from code.

A rule names patterns of the kernel, the operation, the precision and the machine, a condition on the columns, a mapping
and the extents of its cascade as expressions of the columns; the first that fits a row is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from fusemodel.arch import Architecture, load_architecture
from fusemodel.cascade.arrays import evaluate_arrays
from fusemodel.cascade.ir import Expr
from fusemodel.cascade.parse import Names, parse_expression
from fusemodel.errors import InputError, Where, unknown
from fusemodel.library import gpu_rules, names
from fusemodel.specfile import Spec, document_place, validate
from fusemodel.validate.table import SHAPES, Table
from fusemodel.yamlfile import Document, read_yaml

#: Columns that expressions may use, and numbers of the machine.
COLUMNS = tuple(c for shape in SHAPES for c in shape)
MACHINE = ("instances", "l2_bytes", "smem_bytes")


class ChoiceSpec(Spec):
    """One of several mappings or sizes, of which a kernel library takes the fastest for each shape."""

    mapping: str = ""
    extents: dict[str, str | int] = Field({})
    when: str = "1"


class RuleSpec(Spec):
    """``kernel``, ``op``, ``dtype``, ``arch`` and ``scope`` are patterns, of which one must fit; ``let`` names
    expressions for the others; ``when`` must hold; ``refuse`` says, by condition, why a row is left out; what a rule
    without a mapping does not refuse goes on to the next. Of ``choices``, laid over the rule, the fastest is
    predicted. ``replay``: whether the mapping's launch holds the floor of a graph's replay."""

    name: str
    about: str = ""
    kernel: list[str] = Field(["*"])
    op: list[str] = Field(["*"])
    dtype: list[str] = Field(["fp16", "bf16"])
    arch: list[str] = Field(["*"])
    scope: list[str] = Field(["*"])
    let: dict[str, str | int] = Field({})
    when: str = "1"
    refuse: dict[str, str] = Field({})
    mapping: str = ""
    extents: dict[str, str | int] = Field({})
    choices: list[ChoiceSpec] = Field([])
    campaign: bool = False
    replay: bool = True

    @field_validator("kernel", "op", "dtype", "arch", "scope", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class RulesSpec(Spec):
    """``rules`` are tried in order; ``beside`` are further kernels that some scopes include, all that fit."""

    name: str = ""
    about: str = ""
    source: str = ""
    rules: list[RuleSpec] = Field(min_length=1)
    beside: list[RuleSpec] = Field([])


@dataclass(frozen=True)
class Choice:
    """A mapping, the extents of its cascade, and where it can be chosen."""

    mapping: str
    extents: Mapping[str, Expr]
    when: Expr


@dataclass(frozen=True)
class Rule:
    """A rule with its expressions parsed."""

    spec: RuleSpec
    let: Mapping[str, Expr]
    when: Expr
    refuse: Mapping[str, Expr]
    choices: tuple[Choice, ...]
    at: Where

    def fits(self, text: Mapping[str, str], arch: str) -> bool:
        """Whether the names of a row fit."""
        pairs = {**text, "arch": arch}
        return all(
            any(fnmatchcase(pairs[f].lower(), p.lower()) for p in getattr(self.spec, f))
            for f in ("kernel", "op", "dtype", "arch", "scope")
        )


@dataclass(frozen=True)
class Rules:
    rules: tuple[Rule, ...]
    beside: tuple[Rule, ...]
    file: str


@dataclass(frozen=True)
class Option:
    """A mapping, the extents of its cascade for some rows, and for which of them it can be taken."""

    mapping: str
    extents: Mapping[str, NDArray[np.float64]]
    possible: NDArray[np.bool_]


@dataclass(frozen=True)
class Chosen:
    """Rows of a table that one rule predicts on one machine, and the ways it may run them."""

    rule: Rule
    arch: Architecture
    rows: NDArray[np.int64]
    options: tuple[Option, ...]

    def only(self, mask: NDArray[np.bool_], rows: NDArray[np.int64] | None = None) -> Chosen:
        """Some of the rows, perhaps under other numbers."""
        options = tuple(
            Option(o.mapping, {r: v[mask] for r, v in o.extents.items()}, o.possible[mask]) for o in self.options
        )
        return Chosen(self.rule, self.arch, self.rows[mask] if rows is None else rows, options)


def load_rules(path: str | None = None) -> Rules:
    """The rules of a file, or of the library."""
    doc = read_yaml(path or str(gpu_rules()))
    spec = validate(RulesSpec, doc.data, document_place(doc))
    return Rules(_parsed(doc, spec.rules, "rules"), _parsed(doc, spec.beside, "beside"), doc.file)


def _parsed(doc: Document, specs: Sequence[RuleSpec], field: str) -> tuple[Rule, ...]:
    found = []
    for i, spec in enumerate(specs):
        known = [*COLUMNS, *MACHINE]
        let: dict[str, Expr] = {}
        for name, text in spec.let.items():
            let[name] = _expression(text, known, doc, (field, i, "let", name))
            known.append(name)
        found.append(
            Rule(
                spec, let, _expression(spec.when, known, doc, (field, i, "when")),
                {why: _expression(text, known, doc, (field, i, "refuse", why)) for why, text in spec.refuse.items()},
                _choices(doc, spec, known, (field, i)), doc.where(field, i),
            )
        )  # fmt: skip
    return tuple(found)


def _choices(doc: Document, spec: RuleSpec, known: Sequence[str], path: tuple[str | int, ...]) -> tuple[Choice, ...]:
    """The choices of a rule, each with what the rule itself says; the rule alone if it has none."""
    own = {r: _expression(text, known, doc, (*path, "extents", r)) for r, text in spec.extents.items()}
    if spec.refuse and not (spec.mapping or spec.choices):
        return ()
    found = []
    for j, choice in enumerate(spec.choices or [ChoiceSpec(extents={})]):
        here = (*path, "choices", j) if spec.choices else path
        mapping = choice.mapping or spec.mapping
        if mapping not in names("mappings"):
            raise unknown("mapping", mapping, names("mappings"), doc.where(*here, "mapping"))
        laid = {r: _expression(t, known, doc, (*here, "extents", r)) for r, t in choice.extents.items()}
        found.append(Choice(mapping, {**own, **laid}, _expression(choice.when, known, doc, (*here, "when"))))
    return tuple(found)


def _expression(text: str | int, known: Sequence[str], doc: Document, path: tuple[str | int, ...]) -> Expr:
    return parse_expression(str(text), Names(dict.fromkeys(known), extents_only=True), doc.where(*path))


def machines() -> dict[str, str]:
    """Library architectures by every name that data uses for them, in a form without case and punctuation."""
    found: dict[str, str] = {}
    for name in names("archs"):
        arch = load_architecture(name)
        if arch.instances > 1:
            for alias in (arch.name, *arch.aliases):
                found.setdefault(plain_name(alias), name)
    return found


def plain_name(name: str) -> str:
    """A name without case and punctuation, by which it is looked up."""
    return "".join(c for c in name.lower() if c.isalnum())


def choose_rules(table: Table, rules: Rules) -> tuple[list[Chosen], list[Chosen], NDArray[Any]]:
    """For the rows of a table: what predicts them, what runs beside, and why each other row is left out."""
    reason: NDArray[Any] = np.full(len(table), "", dtype=object)
    chosen: list[Chosen] = []
    beside: list[Chosen] = []
    known = machines()
    fields: tuple[str, ...] = ("gpu", "kernel", "op", "dtype", "scope")
    keys: dict[tuple[str, ...], list[int]] = {}
    for i, key in enumerate(zip(*(table.text[f] for f in fields), strict=True)):
        keys.setdefault(key, []).append(i)
    for key, members in keys.items():
        rows = np.array(members)
        text: dict[str, str] = dict(zip(fields, key, strict=True))
        machine = known.get(plain_name(text["gpu"]))
        if machine is None:
            reason[rows] = f"no architecture for gpu {text['gpu']!r}"
            continue
        arch = load_architecture(machine)
        fitting = [r for r in rules.rules if r.fits(text, arch.name)]
        if not fitting:
            reason[rows] = _unfit(rules, text, arch)
            continue
        scope = _scope(table, rows, arch)
        left = np.ones(len(rows), dtype=bool)
        for rule in fitting:
            named = _named(rule, scope)
            if named is None:
                continue
            here = left & np.broadcast_to(evaluate_arrays(rule.when, named, rule.at).astype(bool), left.shape)
            for why, expr in rule.refuse.items():
                bad = here & np.broadcast_to(evaluate_arrays(expr, named, rule.at).astype(bool), left.shape)
                reason[rows[bad]] = why
                left, here = left & ~bad, here & ~bad
            if here.any() and rule.choices:
                chosen.append(_chosen(rule, arch, rows[here], named, here))
                left &= ~here
        reason[rows[left]] = "no rule for a kernel of this shape"
        done = reason[rows] == ""
        for rule in rules.beside:
            if rule.fits(text, arch.name) and (named := _named(rule, scope)) is not None and done.any():
                here = done & np.broadcast_to(evaluate_arrays(rule.when, named, rule.at).astype(bool), done.shape)
                if here.any():
                    beside.append(_chosen(rule, arch, rows[here], named, here))
    return chosen, beside, reason


def _unfit(rules: Rules, text: Mapping[str, str], arch: Architecture) -> str:
    """Why no rule fits the names of a row."""
    for field in ("dtype", "op", "kernel"):
        if any(r.fits({**text, field: p}, arch.name) for r in rules.rules for p in getattr(r.spec, field)):
            return f"no rule for {field} {text[field]!r}"
    return f"no rule for kernel {text['kernel']!r} of op {text['op']!r}"


def _scope(table: Table, rows: NDArray[np.int64], arch: Architecture) -> dict[str, Any]:
    """The numbers an expression may use."""
    levels = list(arch.levels.values())
    cache = next((v.size_bytes for v in levels if v.kind == "cache"), None)
    near = next((v.size_bytes for v in levels if v.per_instance), None)
    machine = {"instances": arch.instances, "l2_bytes": cache or 0, "smem_bytes": near or 0}
    columns = {c: v[rows] for c, v in table.numbers.items() if c in COLUMNS}
    return {**{n: np.float64(v) for n, v in machine.items()}, **columns}


def _named(rule: Rule, scope: Mapping[str, Any]) -> dict[str, Any] | None:
    """The numbers with those that a rule names; None where the table lacks a column it uses."""
    named = dict(scope)
    try:
        for name, expr in rule.let.items():
            named[name] = evaluate_arrays(expr, named, rule.at)
        of_choices = [e for c in rule.choices for e in (c.when, *c.extents.values())]
        for expr in (rule.when, *rule.refuse.values(), *of_choices):
            evaluate_arrays(expr, named, rule.at)
    except InputError:
        return None
    return named


def _chosen(rule: Rule, arch: Architecture, rows: NDArray[np.int64], named: Mapping[str, Any], here) -> Chosen:
    def value(expr: Expr) -> Any:
        return np.broadcast_to(np.asarray(evaluate_arrays(expr, named, rule.at), np.float64), here.shape)[here]

    options = tuple(
        Option(c.mapping, {r: value(e) for r, e in c.extents.items()}, value(c.when).astype(bool)) for c in rule.choices
    )
    return Chosen(rule, arch, rows, options)


__all__ = ["Chosen", "Option", "Rule", "Rules", "choose_rules", "load_rules"]
