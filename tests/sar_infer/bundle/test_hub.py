"""Bundles on a hub, against a server on this machine that speaks its API."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
from click.testing import CliRunner
from support.bundles import BANK_NAMES, reseal, write_bundle
from support.hub import TOKEN, Hub, Repository, serve_hub, use
from support.many import read_rows, write_images
from support.photos import write_folder
from support.servers import local_server
from support.trained import example_trained

from sar_infer.bulk.worker import Answerer, WorkerOptions
from sar_infer.bundle.bundle import Bundle, bundle_name, open_bundle
from sar_infer.bundle.hub import check_push, list_files, push
from sar_infer.bundle.manifest import BANK, CARD, CLASS_MODEL, IMAGE_ENCODER, MANIFEST, TOKENIZER
from sar_infer.cli.bank import main as sar_bank
from sar_infer.cli.bundle import main as sar_bundle
from sar_infer.cli.classify import main as sar_classify
from sar_infer.errors import BundleError, InputError, SchemaError, WriteError
from sar_infer.server.settings import Settings

NAME = "me/garments"
LOCATION = f"hf://{NAME}"
KEY = {"Authorization": "Bearer k"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_hub() as hub:
        use(hub, tmp_path / "cache", monkeypatch, TOKEN)
        yield hub


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """With a card, as every export has."""
    path = write_bundle(tmp_path / "bundle", trained=example_trained())
    (path / CARD).write_text("---\nlibrary_name: sar-clip\n---\n\n# A bundle\n")
    reseal(path)
    return open_bundle(path)


def refusal(location: str, error: type[Exception] = BundleError) -> str:
    with pytest.raises(error) as caught:
        open_bundle(location)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    return str(caught.value)


def fetched(hub: Hub) -> set[str]:
    """Return the paths of the files that were downloaded."""
    return {path.rpartition("/")[2] for method, path in hub.requests if method == "GET" and "/resolve/" in path}


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


# ----------------------------------------------------------------------------------------------------- push and open
def test_a_pushed_bundle_opens_elsewhere(hub: Hub, bundle: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    """A new repository is private and shows the card; the same bundle again makes no commit."""
    location = push(bundle.path, bundle.manifest, NAME)
    repository = hub.repositories[NAME]
    assert location == f"{LOCATION}@{repository.refs['main']}"
    assert repository.private
    assert repository.files["README.md"] == repository.files[CARD] == (bundle.path / CARD).read_bytes()
    assert repository.files.keys() == {".gitattributes", "README.md", MANIFEST, *bundle.manifest.files}
    opened = open_bundle(location)
    assert opened.manifest == bundle.manifest
    assert (opened.origin, opened.location) == (location, location)
    assert opened.tokenizer.encode("dog") == [1929]
    assert capfd.readouterr() == ("", "")
    assert push(bundle.path, bundle.manifest, NAME) == location


def test_a_push_replaces_all_that_was_there(hub: Hub, bundle: Bundle, tmp_path: Path) -> None:
    first = push(bundle.path, bundle.manifest, NAME)
    hub.repositories[NAME].private = False  # by its owner, who keeps it so
    other = open_bundle(write_bundle(tmp_path / "plain"))
    second = push(other.path, other.manifest, NAME)
    assert not {CLASS_MODEL, CARD} & hub.repositories[NAME].files.keys()
    assert not hub.repositories[NAME].private
    assert open_bundle(second).trained is None
    assert open_bundle(first).trained is not None


@pytest.mark.parametrize(
    ("name", "token", "status"),
    [("you/garments", TOKEN, "403"), (NAME, "hf_old", "401")],
)
def test_a_push_that_the_hub_refuses(
    hub: Hub, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, name: str, token: str, status: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(WriteError, match=f"{name}: .*{status}") as caught:
        push(bundle.path, bundle.manifest, name)
    assert token not in str(caught.value)
    assert hub.repositories == {}


def test_a_push_without_a_repository_a_token_or_the_library(
    hub: Hub, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("garments", "me/", "hf://me/garments", "me/garments@v1", "a b/c", ""):
        with pytest.raises(InputError, match="USER/NAME"):
            check_push(name)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="HF_TOKEN"):
        push(bundle.path, bundle.manifest, NAME)
    assert hub.requests == []
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert ".[hub]" in refusal(LOCATION, InputError)
    with pytest.raises(InputError, match=r"pip install .\.\[hub\]"):
        push(bundle.path, bundle.manifest, NAME)


# ------------------------------------------------------------------------------------------------ revisions and cache
def test_a_commit_in_the_cache_needs_no_network_and_a_branch_is_looked_up(
    hub: Hub, bundle: Bundle, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = hub.put(NAME, bundle.path)
    hub.repositories[NAME].refs["v1"] = first
    assert open_bundle(LOCATION).origin == f"{LOCATION}@{first}"
    hub.requests.clear()
    assert open_bundle(f"{LOCATION}@{first}").manifest == bundle.manifest
    assert hub.requests == []
    second = hub.put(NAME, bundle_path)
    assert open_bundle(LOCATION).origin == open_bundle(f"{LOCATION}@main").origin == f"{LOCATION}@{second}"
    assert open_bundle(f"{LOCATION}@v1").origin == f"{LOCATION}@{first}"
    hub.put(NAME, bundle.path)
    go_offline(monkeypatch)
    assert open_bundle(LOCATION).origin == f"{LOCATION}@{second}"  # as it was last seen
    assert open_bundle(f"{LOCATION}@{first}").manifest == bundle.manifest


def test_only_listed_files_are_fetched_and_others_in_the_cache_do_no_harm(hub: Hub, bundle_path: Path) -> None:
    hub.put(NAME, bundle_path, **{"notes.txt": b"of the owner"})
    path = open_bundle(LOCATION).path
    assert {file.name for file in path.iterdir()} == {MANIFEST, *open_bundle(bundle_path).manifest.files}
    huggingface_hub.hf_hub_download(NAME, "notes.txt")
    assert (path / "notes.txt").exists()
    assert open_bundle(LOCATION).bank.names == BANK_NAMES
    with pytest.raises(BundleError, match="not listed"):
        open_bundle(path)  # a folder like others, where it is not a hub's
    (path / "notes.txt").unlink()
    with pytest.raises(BundleError, match="leads out"):
        open_bundle(path)


def test_damage_is_noticed_and_can_be_mended(hub: Hub, bundle_path: Path, tmp_path: Path) -> None:
    hub.put(NAME, bundle_path)
    blob = (open_bundle(LOCATION).path / IMAGE_ENCODER).resolve()
    blob.write_bytes(bytes([blob.read_bytes()[0] ^ 1]) + blob.read_bytes()[1:])
    message = refusal(LOCATION)
    assert message.startswith(f"{LOCATION}: ") and f"{IMAGE_ENCODER}: damaged: " in message
    folder = message.rpartition("remove ")[2].removesuffix(" to fetch them again")
    assert Path(folder) == tmp_path / "cache" / "hub" / "models--me--garments"
    shutil.rmtree(folder)
    assert open_bundle(LOCATION).bank.names == BANK_NAMES


# ----------------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize("location", ["hf://", "hf://me", "hf://me/a/b", "hf://me/a@", "hf://me/a@b c", "hf:///a@main"])
def test_a_location_that_is_not_understood(location: str) -> None:
    assert "hf://USER/NAME@REVISION" in refusal(location, InputError)


def test_what_the_hub_does_not_give(hub: Hub, bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no such repository" in refusal(LOCATION)
    repository = hub.repositories[NAME] = Repository()
    repository.commit({"config.json": b"{}"})
    assert f"no {MANIFEST}" in refusal(LOCATION)
    hub.put(NAME, bundle_path)
    assert "no such revision" in refusal(f"{LOCATION}@v9")
    del repository.files[IMAGE_ENCODER]
    assert f"{LOCATION}: has no {IMAGE_ENCODER}" in refusal(LOCATION)
    repository.private = True
    monkeypatch.delenv("HF_TOKEN")
    assert "HF_TOKEN" in refusal(LOCATION)
    repository.private, repository.gated = False, True
    assert "asked for" in refusal(LOCATION)


def test_no_network_and_nothing_in_the_cache(hub: Hub, bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put(NAME, bundle_path)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the library tries again for half a minute
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}")
    assert "cannot be reached" in refusal(LOCATION)
    go_offline(monkeypatch)
    assert "HF_HUB_OFFLINE" in refusal(LOCATION)


def edited(folder: Path, **fields: object) -> bytes:
    """Return a folder's manifest with other fields, under the digest that it has."""
    return json.dumps(json.loads((folder / MANIFEST).read_text()) | fields).encode()


def list_outside(folder: Path) -> dict[str, bytes]:
    files = open_bundle(folder).manifest.files
    reseal(folder, files={**files, "../../../../x": files[BANK]})
    return {MANIFEST: (folder / MANIFEST).read_bytes(), "../../../../x": b"x"}


def list_many(folder: Path) -> dict[str, bytes]:
    files = open_bundle(folder).manifest.files
    reseal(folder, files={**files, **{f"{number}.bin": files[BANK] for number in range(100)}})
    return {MANIFEST: (folder / MANIFEST).read_bytes()}


HOSTILE: dict[str, tuple[Callable[[Path], dict[str, bytes]], str]] = {
    "something else": (lambda _: {MANIFEST: b'{"name": "an app"}'}, "expected schema_version 1, got None"),
    "not text": (lambda _: {MANIFEST: b"\xff\xfe"}, "manifest.json is not UTF-8 text"),
    "empty": (lambda _: {MANIFEST: b""}, "manifest.json: "),
    "newer": (lambda path: {MANIFEST: edited(path, schema_version=4)}, "expected schema_version 1, got 4"),
    "endless": (lambda _: {MANIFEST: bytes(2**24 + 1)}, "has 16,777,217 bytes; expected 16,777,216 at most"),
    "many files": (list_many, "files; expected 100 at most"),
    "a path outside": (list_outside, "../../../../x"),
    "another size": (lambda _: {TOKENIZER: bytes(2**22)}, f"{TOKENIZER} has 4,194,304 bytes on the hub, and "),
}
"""Files that take the place of a sound bundle's, and what the refusal says."""


@pytest.mark.parametrize(("change", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_strangers_bundle_is_refused_before_its_files_are_fetched(
    hub: Hub, bundle_copy: Path, tmp_path: Path, change: Callable[[Path], dict[str, bytes]], message: str
) -> None:
    hub.put(NAME, bundle_copy, **change(bundle_copy))
    assert message in refusal(LOCATION, SchemaError if "schema" in message else BundleError)
    assert fetched(hub) <= {MANIFEST}
    assert [path for path in tmp_path.rglob("x") if path.is_file()] == []
    cached = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert cached < 2**20


# ------------------------------------------------------------------------------------------ whoever opens a bundle
def run(command, *arguments: object) -> str:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_list_of_files_has_the_commit_and_the_size_of_each(hub: Hub, bundle_path: Path) -> None:
    commit = hub.put(NAME, bundle_path)
    sizes = {path.name: path.stat().st_size for path in bundle_path.iterdir()} | {".gitattributes": 0}
    assert list_files(LOCATION) == (f"{LOCATION}@{commit}", sizes)
    hub.sizes = False  # as of some mirrors
    with pytest.raises(BundleError, match="no size of a file"):
        list_files(LOCATION)


def test_the_commands_take_it(hub: Hub, tmp_path: Path) -> None:
    result = CliRunner().invoke(sar_bundle, ["show", LOCATION])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Error: {LOCATION}: there is no such repository, or the token does not open it\n"
    commit = hub.put(NAME, write_bundle(tmp_path / "sound"))
    photos, bank = write_folder(tmp_path / "photos", {"red": 1}), tmp_path / "mine.safetensors"
    location = f"{LOCATION}@{commit}"
    assert json.loads(run(sar_classify, photos, "--bundle", location, "--format", "json"))
    assert location in run(sar_bundle, "show", LOCATION)
    assert "intact" in run(sar_bundle, "verify", location)
    assert "added 'owl'" in run(sar_bank, "add", bank, "owl", "--bundle", location)
    run(sar_bundle, "freeze", location, "--bank", bank, "--out", tmp_path / "frozen")
    assert open_bundle(tmp_path / "frozen").bank.names == (*BANK_NAMES, "owl")


def test_all_workers_of_a_bulk_run_take_the_same_commit(hub: Hub, bundle_path: Path, tmp_path: Path) -> None:
    commit = hub.put(NAME, bundle_path)
    first = Answerer(WorkerOptions(LOCATION))
    hub.put(NAME, write_bundle(tmp_path / "newer", names=("one", "two")))
    assert first.options.bundle == f"{LOCATION}@{commit}"
    assert Answerer(first.options).settings() == first.settings()
    out = tmp_path / "answers"
    run(sar_classify, *write_images(tmp_path, 3), "--bundle", LOCATION, "--out", out)
    assert {row["label"] for row in read_rows(out)} <= {"one", "two"}


def test_a_server_takes_it_and_a_reload_looks_for_a_newer_one(hub: Hub, tmp_path: Path) -> None:
    import httpx2

    hub.put(NAME, write_bundle(tmp_path / "sound"))
    with local_server(Settings(bundle=LOCATION, key="k", device="cpu", threads=1)) as server:
        model = httpx2.get(f"{server.url}/v2/models/{bundle_name(LOCATION)}", headers=KEY)
        assert model.json()["name"] == "garments"
        commit = hub.put(NAME, write_bundle(tmp_path / "newer", names=("one", "two")))
        assert httpx2.post(f"{server.url}/v1/reload", headers=KEY).status_code == 200
        assert server.service.engine.bundle.origin == f"{LOCATION}@{commit}"
