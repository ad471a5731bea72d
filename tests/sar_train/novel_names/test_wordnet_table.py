"""The script that makes the table of nouns, on files in WordNet's own format (wndb(5WN))."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from sar_train.novel_names import wordnet
from sar_train.novel_names.wordnet import Synset
from scripts.wordnet_table import build

DATA = """\
  1 This software and database is being provided to you, the LICENSEE, by Princeton University
00001740 03 n 01 entity 0 003 ~ 00001930 n 0000 ~ 00002137 n 0000 ~ 04424418 n 0000 | that which is perceived
00001930 03 n 01 physical_entity 0 002 @ 00001740 n 0000 ~ 02084071 n 0000 | an entity that has physical existence
00002137 03 n 02 abstraction 0 abstract_entity 0 002 @ 00001740 n 0000 + 00692329 v 0101 | a general concept | or so
02084071 05 n 03 dog 0 domestic_dog 0 Canis_familiaris 0 003 @ 00001930 n 0000 @ 01317541 n 0000 #m 02083863 n 0000 | x
02086240 05 n 0a a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 Shih-Tzu 1 001 @ 02084071 n 0000 | ten words, counted in base 16
10114209 18 n 02 frump 0 dog 0 001 @ 00001930 n 0000 | a dull unattractive unpleasant girl or woman
10954498 18 n 02 Einstein 0 Albert_Einstein 0 001 @i 00001930 n 0000 | physicist born in Germany
"""
INDEX = """\
  1 This software and database is being provided to you, the LICENSEE, by Princeton University
abstraction n 6 5 @ ~ #p %p + 6 3 05854150 05780885 00661091 13814184 04006024 00002137
canis_familiaris n 1 3 @ ~ #m 1 0 02084071
dog n 7 5 @ ~ #m #p %p 7 1 02084071 10114209 10023039 09886220 07676602 03901548 02710044
entity n 1 1 ~ 1 1 00001740
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "data.noun").write_text(DATA)
    (tmp_path / "index.noun").write_text(INDEX)
    build(tmp_path, tmp_path / "table.tsv.xz")
    return tmp_path / "table.tsv.xz"


def test_every_noun_but_instances_with_its_senses_and_the_hypernyms_that_are_there(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wordnet, "TABLE", table)
    assert wordnet.load.__wrapped__().synsets == {
        1740: Synset(1740, (("entity", 1),), ()),
        1930: Synset(1930, (("physical entity", 1),), (1740,)),
        2137: Synset(2137, (("abstraction", 6), ("abstract entity", 1)), (1740,)),
        2084071: Synset(2084071, (("dog", 1), ("domestic dog", 1), ("Canis familiaris", 1)), (1930,)),
        2086240: Synset(2086240, tuple((word, 1) for word in (*"abcdefghi", "Shih-Tzu")), (2084071,)),
        10114209: Synset(10114209, (("frump", 1), ("dog", 2)), (1930,)),
    }


def test_rows_are_those_that_ship_and_every_build_gives_the_same_bytes(table: Path) -> None:
    rows, shipped = (lzma.decompress(path.read_bytes()).decode().splitlines() for path in (table, wordnet.TABLE))
    assert rows[:3] == shipped[:3]
    before = table.read_bytes()
    build(table.parent, table)
    assert table.read_bytes() == before
