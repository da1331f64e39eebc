"""Timing kernels on this machine's GPU.

Needs the standard library, and PyTorch and Triton to time anything: none of this package's other dependencies, so that
a bare checkout runs on the machine that has the GPU (``python -m fusemodel.validate.measure``).
"""

from __future__ import annotations

from fusemodel.validate.measure.plan import GROUPS, Machine, Plan, make_plan
from fusemodel.validate.measure.run import Report, Settings, measure

__all__ = ["GROUPS", "Machine", "Plan", "Report", "Settings", "make_plan", "measure"]
