"""Answers compared with the truth, findings about names and photos, and pages that show both.

A page NAME is ``NAME.html`` (its body), ``NAME.css`` and ``NAME.js``, which draws the page's data. ``base.css``, which
the server's pages share, and ``base.js`` come first, then ``charts.css`` and ``charts.js`` where figures are drawn.
"""

from __future__ import annotations

from sar_infer.evaluation.compare import encoder_hint
from sar_infer.evaluation.curve import bank_curve
from sar_infer.evaluation.evaluation import (
    RANKED,
    Answer,
    Evaluation,
    LeftOut,
    answers_to,
    class_of,
    evaluate,
    nothing_left,
)
from sar_infer.evaluation.findings import Finding, FindingWarning, duplicates, name_findings
from sar_infer.evaluation.groups import group_lines, group_rows, write_groups
from sar_infer.evaluation.html import html_page, write_page
from sar_infer.evaluation.labels import LIST, LabelCheck, LabelIssue, check_new_photos, write_labels
from sar_infer.evaluation.page import page_data, write_evaluation
from sar_infer.evaluation.reading import ReadPhotos, read_photos, unreadable
from sar_infer.evaluation.several import (
    SeveralEvaluation,
    evaluate_several,
    labels_of,
    several_lines,
    summarised,
    write_several,
)
from sar_infer.evaluation.text import left_out_lines, text_lines

__all__ = [
    "LIST",
    "RANKED",
    "Answer",
    "Evaluation",
    "Finding",
    "FindingWarning",
    "LabelCheck",
    "LabelIssue",
    "LeftOut",
    "ReadPhotos",
    "SeveralEvaluation",
    "answers_to",
    "bank_curve",
    "check_new_photos",
    "class_of",
    "duplicates",
    "encoder_hint",
    "evaluate",
    "evaluate_several",
    "group_lines",
    "group_rows",
    "html_page",
    "labels_of",
    "left_out_lines",
    "name_findings",
    "nothing_left",
    "page_data",
    "read_photos",
    "several_lines",
    "summarised",
    "text_lines",
    "unreadable",
    "write_evaluation",
    "write_groups",
    "write_labels",
    "write_page",
    "write_several",
]
