"""From a heap of photos that nobody labelled to a bank: questions, answers that are stored, an estimate of accuracy."""

from sar_infer.labelling.answers import rescue
from sar_infer.labelling.estimate import Estimate
from sar_infer.labelling.labelling import Guess, Labelling, Question

__all__ = ["Estimate", "Guess", "Labelling", "Question", "rescue"]
