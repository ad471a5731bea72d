from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from sar_infer.bundle.manifest import IMAGE_ENCODER, NAME_ENCODER
from sar_train.export.precision.float16 import cast
from sar_train.export.precision.plain import plain
from sar_train.export.precision.variants import opens


@pytest.mark.parametrize("file", [IMAGE_ENCODER, NAME_ENCODER])
def test_graphs_in_float16_open(exported: Path, tmp_path: Path, file: str) -> None:
    onnx.save(cast(plain(exported / file)), tmp_path / "half.onnx")
    assert opens(tmp_path / "half.onnx")


def test_a_graph_that_is_none_and_one_that_kills_the_process(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    assert not opens(tmp_path / "bad.onnx")
    (tmp_path / "sitecustomize.py").write_text("import os\nos.abort()\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert not opens(exported / IMAGE_ENCODER)
