from sar_train.data.findings import Finding, from_error
from sar_train.errors import DataError


def test_the_last_part_of_a_message_says_how_to_mend() -> None:
    assert from_error("x", DataError("a; b;\n  do c")) == Finding("error", "x", "a; b", "do c")
    assert from_error("x", DataError("no advice")) == Finding("error", "x", "no advice")
