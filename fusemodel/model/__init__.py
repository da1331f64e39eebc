"""The closed-form model: counts from loop nests, time, traffic and energy."""

from fusemodel.model.evaluate import evaluate
from fusemodel.model.result import Evaluation

__all__ = ["Evaluation", "evaluate"]
