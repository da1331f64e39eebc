"""Cascades of extended Einsums: text to typed IR and back, checks, extents."""

from fusemodel.cascade.extents import extents_of
from fusemodel.cascade.ir import Cascade, Einsum
from fusemodel.cascade.load import at_extents, load_cascade, parse_cascade
from fusemodel.cascade.printer import format_cascade, format_einsums

__all__ = [
    "Cascade",
    "Einsum",
    "at_extents",
    "extents_of",
    "format_cascade",
    "format_einsums",
    "load_cascade",
    "parse_cascade",
]
