"""Cascades that make fewer passes, found by algebraic identities on the equations and checked on numbers."""

from fusemodel.analysis.derive.search import Derivation, derive

__all__ = ["Derivation", "derive"]
