"""Tile-level simulation: a mapping as tasks, run event by event, with what each unit waits for."""

from fusemodel.simulate.result import Simulation
from fusemodel.simulate.run import simulate

__all__ = ["Simulation", "simulate"]
