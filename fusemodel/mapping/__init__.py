"""Mappings: how a cascade runs on an architecture. A mapping with both is a design."""

from fusemodel.mapping.load import load_design, parse_design
from fusemodel.mapping.spec import Design, Group

__all__ = ["Design", "Group", "load_design", "parse_design"]
