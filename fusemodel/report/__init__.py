"""Comparisons of designs, and tables for people."""

from fusemodel.report.compare import Comparison, Request, Section, compare, load_request

__all__ = ["Comparison", "Request", "Section", "compare", "load_request"]
