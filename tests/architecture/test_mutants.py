"""The faults that `scripts.mutants` makes: each is another program, and texts and types stay."""

from __future__ import annotations

import ast
from pathlib import Path

from scripts import mutants

MODULE = '''
"""A docstring with a 7."""
def pick(values: list | None = None, least: int = 3) -> int | None:
    if not values or least < -1:
        raise ValueError(f"more than {7 + 7}")
    return [value + 1 for value, _ in zip(values, values, strict=True) if value is not least]
'''


def changed(number: int) -> str:
    tree = ast.parse(MODULE)
    node, (field, value) = mutants.faults(tree)[number]
    setattr(node, field, value)
    return ast.unparse(ast.fix_missing_locations(tree))


def test_every_fault_is_one_change_of_behaviour() -> None:
    before = ast.unparse(ast.parse(MODULE)).splitlines()
    lines = [
        [line.strip() for line, old in zip(changed(number).splitlines(), before, strict=True) if line != old]
        for number in range(len(mutants.faults(ast.parse(MODULE))))
    ]
    rows = "return [value + 1 for value, _ in zip(values, values, strict=True) if value is not least]"
    assert sorted(line for (line,) in lines) == sorted(
        [
            "def pick(values: list | None=None, least: int=4) -> int | None:",
            "if not (not values or least < -1):",
            "if not not values or least < -1:",
            "if not values and least < -1:",
            "if not values or least <= -1:",
            "if not values or least < +1:",
            "if not values or least < -2:",
            "return None",
            rows.replace("value + 1", "value - 1"),
            rows.replace("value + 1", "value + 2"),
            rows.replace("is not", "is"),
            rows.replace("if value is not least", "if not value is not least"),
        ]
    )


def test_a_seed_draws_the_same_faults_again() -> None:
    room = "sar_infer/text"
    drawn = mutants.sample(room, 1, 10)
    assert drawn == mutants.sample(room, 1, 10) != mutants.sample(room, 2, 10)
    assert len(set(drawn)) == 10
    for module, number in drawn:
        text, fault = mutants.broken(module, number)
        assert fault.startswith(f"{module}:")
        assert ast.dump(ast.parse(text)) != ast.dump(ast.parse((mutants.ROOT / module).read_text(encoding="utf-8")))


def test_a_module_meets_the_tests_of_its_room_that_import_it() -> None:
    names = [Path(name).name for name in mutants.tests("sar_infer/classify/ranking.py")]
    assert names[0] == "test_ranking.py"
    assert "test_bank_photos.py" in names
    assert "test_output.py" not in names
    assert "test_class_bank.py" in [Path(name).name for name in mutants.tests("sar_infer/bank/info.py")]
    assert mutants.tests("sar_infer/bulk/listing.py")[0] == "tests/sar_infer/bulk/test_listing.py"
