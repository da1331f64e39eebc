"""Which mapping files are partial: parts of them are to be found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

AUTO = "auto"
SECTIONS = ("tile", "loops", "keep", "bind", "schedule")


def is_partial(data: Mapping[str, Any]) -> bool:
    """Whether a mapping file leaves something open: it says ``auto``, or binds nothing."""
    groups = data.get("groups")
    if groups is None and not {"bind", "variants"} & data.keys() and {"cascade", "arch"} <= data.keys():
        return True
    every = groups if isinstance(groups, list) else [data]
    return any(is_open(g.get(x)) for g in every if isinstance(g, Mapping) for x in (*SECTIONS, "variants"))


def is_open(value: Any) -> bool:
    """Whether ``auto`` stands anywhere in a value."""
    if isinstance(value, Mapping):
        return any(map(is_open, value.values()))
    if isinstance(value, list):
        return any(map(is_open, value))
    return value == AUTO
