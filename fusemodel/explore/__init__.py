"""Finding mappings."""

from fusemodel.explore.found import OBJECTIVES, Found, Point, Progress
from fusemodel.explore.mapper import best_mapping

__all__ = ["OBJECTIVES", "Found", "Point", "Progress", "best_mapping"]
