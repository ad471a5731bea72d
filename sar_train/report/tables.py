"""Make all tables of a folder of results, in the order of the report."""

from __future__ import annotations

from sar_train.report import base_new, beside, costs, disturbed, few_shot, open_ranking, sweeps, targets
from sar_train.report.published import is_published_backbone
from sar_train.report.results import ResultSet
from sar_train.report.table import Table


def all_tables(results: ResultSet) -> list[Table]:
    """Return every table that the results have rows for; keys are unique."""
    makers = (base_new, open_ranking, disturbed, beside, few_shot, targets, sweeps, costs)
    return [table for maker in makers for table in maker.tables(results)]


def accuracy_tables(results: ResultSet) -> list[Table]:
    """Return only the tables of accuracies."""
    return [table for maker in (base_new, open_ranking, few_shot, targets, sweeps) for table in maker.tables(results)]


def published_tables(results: ResultSet) -> list[Table]:
    """Return the published figures with ours beside them, where ours are under the backbone of the published ones."""
    ours = [(run["backbone"]["name"], run["config"].get("pretrained")) for run in results.runs]
    return beside.tables(results) if any(is_published_backbone(*one) for one in ours) else []
