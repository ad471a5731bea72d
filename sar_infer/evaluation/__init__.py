"""Answers beside the truth: how many are right, what is confused with what, and what to do about it."""

from __future__ import annotations

from sar_infer.evaluation.advice import Facts, advise
from sar_infer.evaluation.evaluation import RANKED, Advice, Answer, Evaluation, LeftOut, evaluate
from sar_infer.evaluation.page import page_data, write_evaluation
from sar_infer.evaluation.text import left_out_lines, text_lines

__all__ = [
    "RANKED",
    "Advice",
    "Answer",
    "Evaluation",
    "Facts",
    "LeftOut",
    "advise",
    "evaluate",
    "left_out_lines",
    "page_data",
    "text_lines",
    "write_evaluation",
]
