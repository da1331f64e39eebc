"""Comparisons of designs, and tables for people."""

from fusemodel.report.compare import Comparison, Ranking, Request, Section, compare, load_request

__all__ = ["Comparison", "Ranking", "Request", "Section", "compare", "load_request"]
