"""Objects as cache keys."""

from __future__ import annotations

from typing import Any


class Identity:
    """An object as a cache key: the same one, not an equal one, since comparing cascades and designs is slow."""

    __slots__ = ("of",)

    def __init__(self, of: Any) -> None:
        self.of = of

    def __hash__(self) -> int:
        return id(self.of)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and other.of is self.of


__all__ = ["Identity"]
