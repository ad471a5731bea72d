from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bundles import write_bundle
from support.folders import listing

from sar_infer.bundle import writing
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.card import card
from sar_infer.bundle.manifest import CARD, MANIFEST
from sar_infer.bundle.writing import check_target, seal, staged
from sar_infer.errors import InputError, WriteError
from sar_infer.storage.files import write_file

HOLDING = """
import sys, time
from pathlib import Path
from sar_infer.storage.files import write_file
from sar_infer.bundle.writing import staged
with staged(Path(sys.argv[1]), overwrite=True) as folder:
    write_file(folder / "half", b"written")
    print("writing", flush=True)
    time.sleep(60)
"""


def write(out: Path, content: str, *, overwrite: bool = False) -> None:
    with staged(out, overwrite=overwrite) as folder:
        write_file(folder / "manifest.json", content.encode())


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "exports" / "name"


@pytest.fixture(params=["exchange", "two renames"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "two renames":
        monkeypatch.setattr(writing, "_exchange", lambda *_: False)


def test_an_error_leaves_nothing(out: Path) -> None:
    with pytest.raises(RuntimeError), staged(out, overwrite=False) as folder:
        write_file(folder / "half", b"")
        raise RuntimeError
    assert listing(out.parent) == []


def test_never_replaces_what_is_not_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "file").write_text("precious")
    for name in ("photos", "file"):
        with pytest.raises(InputError, match=name):
            check_target(tmp_path / name, overwrite=True)


@pytest.mark.usefixtures("either_way")
def test_a_bundle_is_replaced_on_request_alone(out: Path) -> None:
    write(out, "old")
    assert content(out) == {"manifest.json": "old"}
    with pytest.raises(InputError, match="--overwrite"):
        write(out, "new")
    assert content(out) == {"manifest.json": "old"}
    write(out, "new", overwrite=True)
    assert content(out) == {"manifest.json": "new"}
    assert listing(out.parent) == ["name"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges folders in one step")
def test_on_linux_there_is_no_moment_without_a_bundle(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(out, "old")

    def no_renames(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.rename", no_renames)
    write(out, "new", overwrite=True)
    assert content(out) == {"manifest.json": "new"}


@pytest.mark.usefixtures("either_way")
def test_the_old_one_stays_where_the_new_one_fails(out: Path) -> None:
    write(out, "old")
    with pytest.raises(WriteError, match="nothing was changed"), staged(out, overwrite=True):
        raise OSError(28, "No space left on device")
    assert content(out) == {"manifest.json": "old"}
    assert listing(out.parent) == ["name"]


def test_a_kill_between_the_two_renames_is_mended(out: Path) -> None:
    write(out, "old")
    out.rename(out.parent / ".name.old")
    with pytest.raises(InputError, match="--overwrite"):
        write(out, "new")
    assert content(out) == {"manifest.json": "old"}


def test_a_link_to_a_bundle_stays_a_link(out: Path, tmp_path: Path) -> None:
    write(out, "old")
    link = tmp_path / "link"
    link.symlink_to(out)
    write(link, "new", overwrite=True)
    assert link.is_symlink()
    assert content(out) == {"manifest.json": "new"}


@pytest.fixture
def another(out: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of writing to ``out``."""
    with subprocess.Popen([sys.executable, "-c", HOLDING, str(out)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        yield process
        process.kill()


def test_two_at_a_time_are_kept_apart(out: Path, another: subprocess.Popen[str]) -> None:
    with pytest.raises(WriteError, match="another export"):
        write(out, "new")
    assert not out.exists()


def test_kill_leaves_nothing_half_written_and_the_next_one_clears_up(out: Path, another: subprocess.Popen[str]) -> None:
    another.kill()
    another.wait()
    assert listing(out.parent) == [".name.lock", ".name.partial"]
    write(out, "new")
    assert content(out) == {"manifest.json": "new"}
    assert listing(out.parent) == ["name"]


def test_a_sealed_bundle_opens_with_its_card(tmp_path: Path) -> None:
    bundle = open_bundle(write_bundle(tmp_path / "b", logit_bias=1.5))
    assert not (bundle.path / CARD).exists()
    manifest = seal(bundle.path, bundle.manifest, bundle.bank)
    again = open_bundle(bundle.path)
    assert again.manifest == manifest
    assert manifest.logit_bias == 1.5
    assert (bundle.path / CARD).read_text(encoding="utf-8") == card(manifest, bundle.bank)
    assert CARD in manifest.files
    assert MANIFEST not in manifest.files


def test_files_shared_with_another_bundle_are_not_written_through(tmp_path: Path) -> None:
    """A derived bundle is made of hard links."""
    first = open_bundle(write_bundle(tmp_path / "first"))
    seal(first.path, first.manifest, first.bank)
    (tmp_path / "second").mkdir()
    for path in first.path.iterdir():
        os.link(path, tmp_path / "second" / path.name)
    before = (first.path / CARD).read_bytes(), (first.path / MANIFEST).read_bytes()
    seal(tmp_path / "second", open_bundle(write_bundle(tmp_path / "third", method="kgcoop")).manifest, first.bank)
    assert before == ((first.path / CARD).read_bytes(), (first.path / MANIFEST).read_bytes())
    assert open_bundle(first.path).manifest.method == "coop"
    assert open_bundle(tmp_path / "second").manifest.method == "kgcoop"
