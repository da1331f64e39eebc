"""What the equations alone say: what depends on what, passes over each rank, and what forces them."""

from fusemodel.analysis.edges import dependence_graph, edges
from fusemodel.analysis.passes import Passes, passes

__all__ = ["Passes", "dependence_graph", "edges", "passes"]
