"""Architectures: storage levels, compute units, and what each action costs."""

from fusemodel.arch.spec import Architecture, Level, Op, Unit, load_architecture, parse_architecture

__all__ = ["Architecture", "Level", "Op", "Unit", "load_architecture", "parse_architecture"]
