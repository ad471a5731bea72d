"""Bundles on a hub, against a server on this machine that speaks its API."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from click.testing import CliRunner
from support.bundles import BANK_NAMES, example_head, reseal, write_bundle
from support.hub import TOKEN, Hub, Repository, serve_hub, use
from support.many import write_images
from support.photos import write_folder
from support.servers import local_server
from support.sound import write_sound

from sar_infer import Classifier
from sar_infer.bulk.worker import Answerer, WorkerOptions
from sar_infer.bundle.bundle import Bundle, bundle_name, open_bundle
from sar_infer.bundle.hub import check_push, push
from sar_infer.bundle.manifest import BANK, CARD, HEAD, IMAGE_ENCODER, MANIFEST, TOKENIZER
from sar_infer.cli.bank import main as sar_bank
from sar_infer.cli.bundle import main as sar_bundle
from sar_infer.cli.classify import main as sar_classify
from sar_infer.errors import BundleError, InputError, SchemaError, WriteError
from sar_infer.server.settings import Settings

NAME = "me/garments"
PLACE = f"hf://{NAME}"
KEY = {"Authorization": "Bearer k"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_hub() as hub:
        use(hub, tmp_path / "cache", monkeypatch, TOKEN)
        yield hub


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """With a card, as every export has."""
    path = write_bundle(tmp_path / "bundle", head=example_head())
    (path / CARD).write_text("---\nlibrary_name: sar-clip\n---\n\n# A bundle\n")
    reseal(path)
    return open_bundle(path)


def refused(place: str, error: type[Exception] = BundleError) -> str:
    with pytest.raises(error) as caught:
        open_bundle(place)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    return str(caught.value).replace("\N{HORIZONTAL ELLIPSIS}", "")


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


# ----------------------------------------------------------------------------------------------------- push and open
def test_what_is_pushed_opens_elsewhere(hub: Hub, bundle: Bundle) -> None:
    place = push(bundle.path, bundle.manifest, NAME)
    assert place == f"{PLACE}@{hub.repositories[NAME].refs['main']}"
    opened = open_bundle(place)
    assert opened.manifest == bundle.manifest
    assert opened.head is not None
    assert (opened.origin, opened.location) == (place, place)
    assert opened.tokenizer.encode("dog") == [1929]


def test_a_new_repository_is_private_and_shows_the_card(hub: Hub, bundle: Bundle) -> None:
    push(bundle.path, bundle.manifest, NAME)
    made = hub.repositories[NAME]
    assert made.private
    assert made.files["README.md"] == made.files[CARD] == (bundle.path / CARD).read_bytes()
    assert made.files.keys() == {".gitattributes", "README.md", MANIFEST, *bundle.manifest.files}


def test_large_files_go_the_way_of_large_files(hub: Hub, bundle: Bundle) -> None:
    push(bundle.path, bundle.manifest, NAME)
    assert (bundle.path / TOKENIZER).read_bytes() in hub.large.values()
    assert (bundle.path / MANIFEST).read_bytes() not in hub.large.values()


def test_a_push_replaces_all_that_was_there(hub: Hub, bundle: Bundle, tmp_path: Path) -> None:
    first = push(bundle.path, bundle.manifest, NAME)
    hub.repositories[NAME].private = False  # by its owner, who keeps it so
    other = open_bundle(write_bundle(tmp_path / "plain"))
    second = push(other.path, other.manifest, NAME)
    assert HEAD not in hub.repositories[NAME].files
    assert CARD not in hub.repositories[NAME].files
    assert not hub.repositories[NAME].private
    assert open_bundle(second).head is None
    assert open_bundle(first).head is not None


def test_the_same_bundle_again_makes_no_commit(hub: Hub, bundle: Bundle) -> None:
    assert push(bundle.path, bundle.manifest, NAME) == push(bundle.path, bundle.manifest, NAME)


def test_a_push_shows_nothing_unless_it_is_to(
    hub: Hub, bundle: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    push(bundle.path, bundle.manifest, NAME)
    assert capfd.readouterr() == ("", "")
    other = open_bundle(write_bundle(tmp_path / "other", names=[f"thing {i}" for i in range(999)]))
    push(other.path, other.manifest, NAME, progress=True)
    assert BANK in capfd.readouterr().err


# ------------------------------------------------------------------------------------------------ revisions and cache
def test_a_commit_that_was_fetched_needs_no_network(hub: Hub, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    place = push(bundle.path, bundle.manifest, NAME)
    open_bundle(place)
    hub.requests.clear()
    open_bundle(place)
    assert hub.requests == []
    offline(monkeypatch)
    assert open_bundle(place).manifest == bundle.manifest


def test_a_branch_is_looked_up_and_a_tag_stays(hub: Hub, bundle: Bundle, bundle_path: Path) -> None:
    first = hub.put(NAME, bundle.path)
    hub.repositories[NAME].refs["v1"] = first
    assert open_bundle(PLACE).origin == f"{PLACE}@{first}"
    second = hub.put(NAME, bundle_path)
    assert open_bundle(PLACE).origin == open_bundle(f"{PLACE}@main").origin == f"{PLACE}@{second}"
    assert open_bundle(f"{PLACE}@v1").origin == f"{PLACE}@{first}"


def test_a_branch_without_a_network_is_as_it_was_last_seen(
    hub: Hub, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.put(NAME, bundle_path)
    open_bundle(PLACE)
    offline(monkeypatch)
    assert open_bundle(PLACE).origin == f"{PLACE}@{commit}"


def test_files_that_the_manifest_does_not_list_are_not_fetched(hub: Hub, bundle_path: Path) -> None:
    hub.put(NAME, bundle_path, **{"notes.txt": b"of the owner"})
    fetched = {path.name for path in open_bundle(PLACE).path.iterdir()}
    assert fetched == {MANIFEST, *open_bundle(bundle_path).manifest.files}


def test_what_the_library_downloaded_whole_is_taken(
    hub: Hub, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.put(NAME, bundle_path)
    huggingface_hub.snapshot_download(NAME)
    offline(monkeypatch)
    assert (open_bundle(PLACE).path / ".gitattributes").exists()
    assert open_bundle(f"{PLACE}@{commit}").bank.names == BANK_NAMES


# ----------------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize("place", ["hf://", "hf://me", "hf://me/a/b", "hf://me/a@", "hf://me/a@b c", "hf:///a@main"])
def test_a_place_that_is_none(place: str) -> None:
    assert "hf://USER/NAME@REVISION" in refused(place, InputError)


def test_no_such_repository_or_revision(hub: Hub, bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no such repository" in refused(PLACE)
    hub.put(NAME, bundle_path)
    assert "no such revision" in refused(f"{PLACE}@v9")
    hub.repositories[NAME].private = True
    monkeypatch.delenv("HF_TOKEN")
    assert "HF_TOKEN" in refused(PLACE)
    hub.repositories[NAME].private, hub.repositories[NAME].gated = False, True
    assert "asked for" in refused(PLACE)


def test_a_repository_without_a_bundle(hub: Hub) -> None:
    hub.repositories[NAME] = Repository()
    hub.repositories[NAME].commit({"config.json": b"{}"})
    assert f"no {MANIFEST}" in refused(PLACE)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (b'{"name": "an app"}', "hf://me/garments: manifest.json: "),
        (b"\xff\xfe", "manifest.json is not UTF-8 text"),
        (b"", "manifest.json: "),
    ],
)
def test_a_manifest_of_something_else(hub: Hub, bundle_path: Path, manifest: bytes, message: str) -> None:
    hub.put(NAME, bundle_path, **{MANIFEST: manifest})
    assert message in refused(PLACE)


def test_a_bundle_for_a_newer_reader(hub: Hub, bundle_path: Path) -> None:
    content = json.loads((bundle_path / MANIFEST).read_text())
    hub.put(NAME, bundle_path, **{MANIFEST: json.dumps(content | {"schema_version": 4, "min_reader": 4}).encode()})
    assert "upgrade sar-clip" in refused(PLACE, SchemaError)


def test_a_listed_file_that_the_repository_lacks(hub: Hub, bundle_path: Path) -> None:
    hub.put(NAME, bundle_path)
    del hub.repositories[NAME].files[IMAGE_ENCODER]
    assert f"{PLACE}: has no {IMAGE_ENCODER}" in refused(PLACE)


def test_a_listed_name_that_leads_elsewhere(hub: Hub, bundle_copy: Path, tmp_path: Path) -> None:
    content = json.loads((bundle_copy / MANIFEST).read_text())
    entry = content["files"][BANK]
    reseal(bundle_copy, files={**open_bundle(bundle_copy).manifest.files, "../../../../x": entry})
    hub.put(NAME, bundle_copy)
    hub.repositories[NAME].files["../../../../x"] = b"x"
    refused(PLACE)
    assert [path.name for path in tmp_path.rglob("x")] == []


def test_a_damaged_file(hub: Hub, bundle_path: Path, tmp_path: Path) -> None:
    data = (bundle_path / IMAGE_ENCODER).read_bytes()
    hub.put(NAME, bundle_path, **{IMAGE_ENCODER: bytes([data[0] ^ 1]) + data[1:]})
    message = refused(PLACE)
    assert message.startswith(f"{PLACE}: ") and f"{IMAGE_ENCODER}: damaged: " in message
    folder = message.rpartition("remove ")[2].removesuffix(" to fetch them again")
    hub.put(NAME, bundle_path)
    assert Path(folder) == tmp_path / "cache" / "hub" / "models--me--garments"
    shutil.rmtree(folder)
    assert open_bundle(PLACE).bank.names == BANK_NAMES


@pytest.mark.parametrize("name", [IMAGE_ENCODER, TOKENIZER, CARD])
def test_a_file_of_another_size_than_the_manifest_gives_is_refused_before_anything_is_fetched(
    hub: Hub, bundle: Bundle, tmp_path: Path, name: str
) -> None:
    hub.put(NAME, bundle.path, **{name: bytes(2**22)})
    size = bundle.manifest.files[name].size
    assert f"{PLACE}: {name} has 4,194,304 bytes on the hub, and {size:,} by {MANIFEST}" in refused(PLACE)
    fetched = {path for method, path in hub.requests if method == "GET"}
    assert fetched == {f"/{NAME}/resolve/main/{MANIFEST}"}
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file()) < 2**20


def test_a_manifest_of_any_size_is_not_fetched(hub: Hub, bundle_path: Path) -> None:
    hub.put(NAME, bundle_path, **{MANIFEST: bytes(2**24 + 1)})
    assert f"{MANIFEST} has 16,777,217 bytes; expected 16,777,216 at most" in refused(PLACE)
    assert {method for method, _ in hub.requests} == {"HEAD"}


def test_a_manifest_that_lists_files_without_end(hub: Hub, bundle_copy: Path) -> None:
    files = open_bundle(bundle_copy).manifest.files
    reseal(bundle_copy, files={**files, **{f"{number}.bin": files[BANK] for number in range(100)}})
    hub.put(NAME, bundle_copy)
    assert "files; expected 100 at most" in refused(PLACE)


def test_damage_in_the_cache_is_noticed(hub: Hub, bundle_path: Path) -> None:
    hub.put(NAME, bundle_path)
    blob = (open_bundle(PLACE).path / IMAGE_ENCODER).resolve()
    blob.write_bytes(bytes([blob.read_bytes()[0] ^ 1]) + blob.read_bytes()[1:])
    assert f"{IMAGE_ENCODER}: damaged: sha256" in refused(PLACE)


def test_a_folder_of_links_is_still_refused_where_it_is_no_cache(hub: Hub, bundle_path: Path) -> None:
    hub.put(NAME, bundle_path)
    with pytest.raises(BundleError, match="leads out"):
        open_bundle(open_bundle(PLACE).path)


def test_no_network_and_nothing_in_the_cache(hub: Hub, bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put(NAME, bundle_path)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the library tries again for half a minute
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}")
    assert "cannot be reached" in refused(PLACE)
    offline(monkeypatch)
    assert "HF_HUB_OFFLINE" in refused(PLACE)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "sar-clip[hub]" in refused(PLACE, InputError)
    with pytest.raises(InputError, match=r"sar-clip\[hub\]"):
        push(bundle.path, bundle.manifest, NAME)


@pytest.mark.parametrize("name", ["garments", "me/", "hf://me/garments", "me/garments@v1", "a b/c", ""])
def test_a_repository_that_is_no_name(hub: Hub, name: str) -> None:
    with pytest.raises(InputError, match="USER/NAME"):
        check_push(name)


def test_no_token(hub: Hub, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="HF_TOKEN"):
        push(bundle.path, bundle.manifest, NAME)
    assert hub.requests == []


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


# ------------------------------------------------------------------------------------------ whoever opens a bundle
def run(command, *arguments: object) -> str:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_commands_take_it(hub: Hub, tmp_path: Path) -> None:
    commit = hub.put(NAME, write_sound(tmp_path / "sound"))
    photos, bank = write_folder(tmp_path / "photos", {"red": 1}), tmp_path / "mine.safetensors"
    place = f"{PLACE}@{commit}"
    assert json.loads(run(sar_classify, photos, "--bundle", place, "--format", "json"))
    assert place in run(sar_classify, "--bundle", PLACE, "--info")
    assert place in run(sar_bundle, "show", PLACE)
    assert "within all bounds" in run(sar_bundle, "verify", place)
    assert "added 'owl'" in run(sar_bank, "add", bank, "owl", "--bundle", place)
    run(sar_bundle, "freeze", place, "--bank", bank, "--out", tmp_path / "frozen")
    assert open_bundle(tmp_path / "frozen").bank.names == (*BANK_NAMES, "owl")


def test_a_refusal_is_one_line(hub: Hub) -> None:
    for command, *arguments in ((sar_classify, "--info", "--bundle"), (sar_bundle, "show"), (sar_bundle, "verify")):
        result = CliRunner().invoke(command, [*arguments, PLACE])
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == f"Error: {PLACE}: there is no such repository, or the token does not open it\n"


def test_all_workers_of_a_bulk_run_take_the_same_commit(hub: Hub, bundle_path: Path, tmp_path: Path) -> None:
    commit = hub.put(NAME, bundle_path)
    first = Answerer(WorkerOptions(PLACE))
    hub.put(NAME, write_bundle(tmp_path / "newer", names=("one", "two")))
    assert first.options.bundle == f"{PLACE}@{commit}"
    assert Answerer(first.options).settings() == first.settings()
    out = tmp_path / "answers.jsonl"
    run(sar_classify, *write_images(tmp_path, 3), "--bundle", PLACE, "--out", out)
    assert {json.loads(line)["label"] for line in out.read_text().splitlines()} <= {"one", "two"}


def test_a_server_takes_it_and_a_reload_looks_for_a_newer_one(hub: Hub, tmp_path: Path) -> None:
    import httpx2

    hub.put(NAME, write_sound(tmp_path / "sound"))
    with local_server(Settings(bundle=PLACE, key="k", device="cpu", threads=1)) as server:
        known = httpx2.get(f"{server.url}/v2/models/{bundle_name(PLACE)}", headers=KEY)
        assert known.json()["name"] == "garments"
        commit = hub.put(NAME, write_sound(tmp_path / "newer", head=example_head()))
        assert httpx2.post(f"{server.url}/v1/reload", headers=KEY).status_code == 200
        assert server.service.engine.bundle.origin == f"{PLACE}@{commit}"


def test_a_classifier_opens_it(hub: Hub, bundle_path: Path, tmp_path: Path) -> None:
    commit = hub.put(NAME, bundle_path)
    (image,) = write_images(tmp_path, 1)
    here, there = (Classifier.open(place).classify(image) for place in (bundle_path, f"{PLACE}@{commit}"))
    assert there == here
