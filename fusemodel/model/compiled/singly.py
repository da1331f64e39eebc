"""Mappings evaluated one after another, where counts need plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusemodel.errors import InputError
from fusemodel.mapping.spec import Design
from fusemodel.model.compiled.trace import labels_of, named
from fusemodel.model.cost import cost_of
from fusemodel.model.evaluate import total
from fusemodel.model.plan import Plan
from fusemodel.model.registers import held_in_registers
from fusemodel.model.tiles import Chosen, sizes_of


def results_of(
    design: Design, plans: Sequence[Plan], extents: Mapping[str, int], tiles: Sequence[Mapping[str, int]]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Every result of one mapping, by the names that columns have, and its notes. ``tiles`` are the sizes of all parts,
    with the extents, for each group."""
    costs = [cost_of(p, t, extents) for p, t in zip(plans, tiles, strict=True)]
    chosen = [Chosen(p, dict(t), c, 1) for p, t, c in zip(plans, tiles, costs, strict=True)]
    found = total(design, chosen, dict(extents), None, None)
    result = dict(named(found))
    held = [h for c in chosen for h in held_in_registers(c.plan, c.sizes)]
    result |= {
        f"need_bytes.{level}": float(max(c.need_words[level] for c in costs) * design.arch.word_bytes)
        for level in costs[0].need_words
    }
    result |= {
        "edp_js": found.latency_s * found.energy_j,
        "fits": all(x <= 0 for c in costs for x in c.excess_words.values()),
        "registers_hold": all(h.words <= h.room for h in held),
    }
    return result, tuple(found.notes)


def one_by_one(
    design: Design, plans: Sequence[Plan], extents: Mapping[str, int], rows: Mapping[str, Any], length: int,
    columns: Sequence[str] | None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], tuple[str, ...]]:  # fmt: skip
    """Columns, tiles and notes of many mappings."""
    labels = labels_of([p.group for p in plans])
    found: list[dict[str, Any]] = []
    taken: list[dict[str, float]] = []
    notes: dict[str, None] = {}
    for i in range(length):
        sets = {n: int(np.broadcast_to(c, (length,))[i]) for n, c in rows.items()}
        try:
            tiles = [sizes_of(p, extents, sets) for p in plans]
        except InputError:  # does not divide
            found.append({"valid": False})
            taken.append({})
            continue
        result, said = results_of(design, plans, extents, tiles)
        if columns is not None:
            result = {n: v for n, v in result.items() if n in columns or n.startswith("need_bytes.")}
        found.append({"valid": True, **result})
        taken.append({
            label + p: float(t[p]) for label, plan, t in zip(labels, plans, tiles, strict=True)
            for ps in plan.group.parts.values() for p in ps
        })  # fmt: skip
        notes |= dict.fromkeys(said)
    return _columns(found), _columns(taken), tuple(notes)


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Rows as columns. What a row does not have is 0; of one that is not valid, nothing."""
    result = {}
    for name in dict.fromkeys(n for row in rows for n in row):
        example = next(row[name] for row in rows if name in row)
        if isinstance(example, str):
            result[name] = np.array([row.get(name, "") for row in rows])
        elif isinstance(example, bool):
            result[name] = np.array([row.get(name, False) for row in rows])
        else:
            result[name] = np.array([row.get(name, 0.0 if row.get("valid") else np.nan) for row in rows], dtype=float)
    return result
