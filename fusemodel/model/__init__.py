"""The closed-form model: counts from loop nests, time, traffic and energy.

Many mappings at once are in :mod:`fusemodel.model.compiled`, which is imported when it is first used.
"""

from fusemodel.model.evaluate import evaluate
from fusemodel.model.result import Evaluation

__all__ = ["Evaluation", "evaluate"]
