"""What the equations alone say: passes over each rank, and what forces them."""

from fusemodel.analysis.passes import Passes, passes

__all__ = ["Passes", "passes"]
