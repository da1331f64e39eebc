"""Finding mappings."""

from fusemodel.explore.auto import Found, auto_map

__all__ = ["Found", "auto_map"]
