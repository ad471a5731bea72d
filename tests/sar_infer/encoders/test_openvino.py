"""OpenVINO as another engine for image encoders; its own wheel runs here."""

from __future__ import annotations

import importlib.util
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from support.bundles import DIM

from sar_infer import Classifier
from sar_infer.bundle.manifest import IMAGE_ENCODER
from sar_infer.encoders import gate, openvino
from sar_infer.encoders.encoders import ImageEncoder, unit_rows
from sar_infer.encoders.engines import open_encoder
from sar_infer.encoders.self_test import PARITY
from sar_infer.encoders.sessions import is_accelerator
from sar_infer.errors import BundleError, DeviceError, InputError

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs the extra openvino")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/sar-clip/openvino"


@pytest.fixture
def pixels(bundle_path: Path) -> np.ndarray:
    size = Classifier.open(bundle_path).bundle.manifest.preprocess.size
    return np.random.default_rng(0).standard_normal((5, 3, size, size), dtype=np.float32)


def test_without_the_extra_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match=r"^device openvino: OpenVINO is not installed; pip install '\.\[openvino\]'"):
        Classifier(device="openvino")
    assert not is_accelerator("openvino")


@needs_openvino
def test_it_gives_what_onnxruntime_gives(bundle_path: Path, pixels: np.ndarray) -> None:
    classifier, reference = (Classifier.open(bundle_path, device=device) for device in ("openvino", "cpu"))
    assert classifier.start(names=True, self_test=True) == "OpenVINO"
    rows, expected = classifier.embed_inputs([pixels]), reference.embed_inputs([pixels])
    assert (unit_rows(rows) * unit_rows(expected)).sum(1).min() >= PARITY  # it adds some 1e-6 to a length
    assert np.abs(classifier.embed_inputs([pixels[:1]]) - rows[:1]).max() < 1e-5
    assert (classifier.embed_names(["a cup"]) == reference.embed_names(["a cup"])).all()
    together: dict[int, np.ndarray] = {}
    calls = [
        threading.Thread(target=lambda row=row: together.update({row: classifier.embed_inputs([pixels[row]])}))
        for row in range(len(pixels))
    ]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert np.abs(np.concatenate([together[row] for row in range(len(pixels))]) - rows).max() < 1e-5


@needs_openvino
def test_a_compiled_graph_is_stored_and_a_damaged_one_compiled_again(
    bundle_path: Path, pixels: np.ndarray, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(threads: int | None = None) -> np.ndarray:
        return open_encoder(bundle_path / IMAGE_ENCODER, "openvino", threads).run("pixels", pixels)

    first = rows()
    (stored,) = cache.glob("*.blob")
    content, written = stored.read_bytes(), stored.stat().st_mtime_ns
    assert (rows() == first).all() and stored.stat().st_mtime_ns == written
    stored.write_bytes(content[:-4] + b"evil")
    assert (rows() == first).all() and stored.read_bytes()[-4:] != b"evil"
    monkeypatch.setattr(openvino, "_STORED", 1)
    rows(threads=1)
    assert [*cache.glob("*.blob")] != [stored]
    assert len([*cache.glob("*.blob")]) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    assert (rows() == first).all()


@needs_openvino
def test_bad_graphs_and_runs_that_are_stopped_end_with_one_line(
    bundle_path: Path, pixels: np.ndarray, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.onnx").write_bytes(b"nonsense")
    with pytest.raises(
        BundleError, match=r"m\.onnx: OpenVINO does not accept this graph: .*; use --device cpu$"
    ) as caught:
        open_encoder(tmp_path / "m.onnx", "openvino")
    assert "\n" not in str(caught.value) and capfd.readouterr() == ("", "")
    encoder = ImageEncoder(bundle_path / IMAGE_ENCODER, DIM + 1, "openvino")
    with pytest.raises(BundleError, match="expected rows"):
        encoder.encode(pixels)
    with pytest.raises(BundleError, match=r"OpenVINO cannot run this graph"):
        encoder.encode(pixels[:, :2])
    encoder.stop()
    with pytest.raises(BundleError, match="stopped"):
        encoder.encode(pixels)


@needs_openvino
def test_bfloat16_where_the_gate_passes_and_nowhere_else(
    bundle_path: Path, pixels: np.ndarray, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"^precision bf16: OpenVINO alone .* --device openvino$"):
        Classifier(bundle_path, precision="bf16")
    monkeypatch.setattr(gate, "has_bfloat16", lambda: False)
    with pytest.raises(InputError, match=r"^precision bf16: this processor has no instructions .* --precision fp32$"):
        Classifier(bundle_path, device="openvino", precision="bf16")
    monkeypatch.setattr(gate, "has_bfloat16", lambda: True)
    monkeypatch.setattr(gate, "LEAST_COSINE", 1.1)
    with pytest.raises(InputError, match=r"^precision bf16: this encoder loses too much in it: mean cosine 0\.99"):
        Classifier(bundle_path, device="openvino", precision="bf16")
    (outcome,) = cache.glob("*.json")
    assert 0.99 < json.loads(outcome.read_text())[0] < 1.01
    outcome.write_text("[1.2, 1.0]")  # it is remembered
    classifier = Classifier.open(bundle_path, device="openvino", precision="bf16")
    assert (classifier.start(self_test=True), classifier.choice.precision) == ("OpenVINO", "bf16")
    exact = Classifier.open(bundle_path, device="openvino").embed_inputs([pixels])
    assert 0 < np.abs(classifier.embed_inputs([pixels]) - exact).max() < 0.2
