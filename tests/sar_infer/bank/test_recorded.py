"""500 recorded edit scripts, and the names and photos that each ends in.

They were recorded on the bank of slots and replay rules (commit c035733b). Scripts that roll back past forgotten photos
were left out: forgetting cannot be undone since.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.banks import ENCODER, photo_set, unit_row, unit_rows
from support.tensor_bytes import read as tensors
from support.trained import example_model

from sar_infer.bank import (
    ClassBank,
    Learn,
    add,
    add_photos,
    fit,
    forget_photos,
    learn,
    remove,
    rename,
    rollback,
    set_class,
)
from sar_infer.errors import SarInferError

DIM = 8
FOLDER = Path(__file__).parent / "recorded"
SCRIPTS: list[dict[str, Any]] = json.loads((FOLDER / "scripts.json").read_text("utf-8"))
ENDS = tensors(FOLDER / "ends.safetensors")[1]
STARTS = np.cumsum([0, *(len(script["names"]) for script in SCRIPTS)])


def model(word: str | None) -> dict[str, Any]:
    if word is None:
        return {}
    return example_model(DIM, slope={"u": 0.5, "v": 0.2}[word]).tensors()


def learning(sums: dict[str, str], photos: int) -> Learn:
    if not photos:
        return Learn.nothing(DIM)
    rows, counts = 2 * unit_rows(sums.values(), DIM), np.arange(2.5, 2.5 + len(sums))
    translation = (unit_row("translation", DIM) / 8).astype(np.float32)
    return Learn(tuple(sums), rows, counts, translation, {"temperature": 1.5}, photos)


def applied(bank: ClassBank, kind: str, args: list[Any], folder: Path) -> ClassBank:
    match kind, args:
        case "add", [rows]:
            return add(bank, [*rows], unit_rows(rows.values(), DIM))
        case "remove", [name]:
            return remove(bank, [name])
        case "rename", [old, new]:
            return rename(bank, old, new)
        case "set", [name, threshold, background]:
            return set_class(bank, name, threshold=threshold, background=background)
        case "aliases", [name, aliases]:
            return set_class(bank, name, aliases=aliases)
        case "photos", [name, labels, only]:
            return add_photos(bank, {name: photo_set(*labels, photos_only=only, dim=DIM)})
        case "only", [name, only]:
            return set_class(bank, name, photos_only=only)
        case "forget", [name, labels]:
            return forget_photos(bank, name, photo_set(*labels, dim=DIM).digests)
        case "fit", [word]:
            return fit(bank, model(word))
        case "learn", [sums, photos]:
            return learn(bank, learning(sums, photos))
        case "rollback", [to]:
            return rollback(bank, to)
    bank.save(folder / "bank.safetensors")
    return ClassBank.load(folder / "bank.safetensors")


@pytest.mark.parametrize("first", range(0, len(SCRIPTS), 50))
def test_scripts_end_where_they_did(first: int, tmp_path: Path) -> None:
    alone = ClassBank.of([*"abc"], unit_rows("abc", DIM), ENCODER)
    alone.save(tmp_path / "base.safetensors")
    based = ClassBank.load(tmp_path / "base.safetensors").shared(tmp_path / "base.safetensors")
    for number, script in enumerate(SCRIPTS[first : first + 50], first):
        bank = based if script["base"] else alone
        for kind, *args in script["ops"]:
            if kind == "!":
                with pytest.raises(SarInferError):
                    applied(bank, args[0], args[1:], tmp_path)
            else:
                bank = applied(bank, kind, args, tmp_path)
        end = slice(STARTS[number], STARTS[number + 1])
        assert list(bank.names) == script["names"], number
        assert [len(bank.photos_of(name)) for name in bank.names] == script["photos"]
        assert bank.history[-1].n == script["history"]
        assert (bank.learned is not None, bank.fitted is not None) == (script["learned"], script["fitted"])
        assert script["stale"] >= bool(bank.learned and bank.learned.stale)  # a class that came and went is nothing new
        images = ENDS["images"]
        np.testing.assert_allclose(bank.embeddings @ images.T, ENDS["texts"][end], atol=1e-6)
        means = np.array([bank.photos_of(name).mean for name in bank.names])
        np.testing.assert_allclose(means @ images.T, ENDS["photos"][end], atol=1e-6)
