"""All tables together."""

from __future__ import annotations

import re
from pathlib import Path

from support.results import result, sample, write

from sar_train.report.page import SECTIONS
from sar_train.report.results import read
from sar_train.report.tables import all_tables


def test_every_kind_of_result_has_its_tables_under_keys_of_their_own(tmp_path: Path) -> None:
    sample(tmp_path)
    found = all_tables(read(tmp_path))
    keys = [table.key for table in found]
    assert len(set(keys)) == len(keys)
    assert {table.section for table in found} == set(SECTIONS) - {"curves", "set-up", "domain-generalisation"}
    for table in found:
        heads = [column.flat for column in table.columns]
        assert len(set(heads)) == len(heads), table.key


def test_words_are_aligned_to_the_left_and_figures_to_the_right(tmp_path: Path) -> None:
    sample(tmp_path)
    for table in all_tables(read(tmp_path)):
        for column, *cells in zip(table.columns, *table.rows, strict=True):
            figures = all(re.match(r"[-+−]?\d", cell.text) for cell in cells if cell.text)
            labels = column.name in ("seeds", "shots") or column.group == "settings"
            assert column.text == (labels or not figures), (table.key, column.flat)


def test_names_in_other_scripts_have_keys_of_their_own(tmp_path: Path) -> None:
    for dataset in ("猫", "花"):
        write(tmp_path, result(dataset=dataset))
        write(tmp_path, result(dataset=dataset, protocol="custom"))
    keys = [table.key for table in all_tables(read(tmp_path))]
    assert len(set(keys)) == len(keys)
    assert all(key.isascii() for key in keys)
