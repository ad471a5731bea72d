"""Make all tables of a folder of results, in the order of the report."""

from __future__ import annotations

from sar_train.report import base_new, beside, costs, disturbed, few_shot, sweeps, targets
from sar_train.report.results import Results
from sar_train.report.table import Table


def all_tables(results: Results) -> list[Table]:
    """Return every table that the results have rows for; keys are unique."""
    makers = (base_new, disturbed, beside, few_shot, targets, sweeps, costs)
    return [table for maker in makers for table in maker.tables(results)]


def accuracy_tables(results: Results) -> list[Table]:
    """Return only the tables of accuracies."""
    return [table for maker in (base_new, few_shot, targets, sweeps) for table in maker.tables(results)]
