"""Finding mappings."""

from fusemodel.explore.mapper import Found, best_mapping

__all__ = ["Found", "best_mapping"]
