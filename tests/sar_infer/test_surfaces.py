"""A class is added by command, over HTTP and in Python with one meaning, and while photos are read the bank is free."""

from __future__ import annotations

import base64
import urllib.parse
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from support.bank_commands import BANK, COLOURS, Command, paint, start
from support.bundles import write_bundle
from support.servers import local_server

from sar_infer import Classifier, ClassNameError
from sar_infer.bank import ClassBank, set_class
from sar_infer.cli.bank import main
from sar_infer.evaluation.findings import FindingWarning
from sar_infer.server.settings import Settings

run = Command(main)
Put = Callable[[str, Sequence[str], Sequence[str], bool], bool]
"""Adds a class by its name, phrases and photos, perhaps by photos only; returns False if that is refused."""

pytestmark = pytest.mark.usefixtures("here")


@contextmanager
def command(bundle: Path) -> Iterator[Put]:
    def put(name: str, phrases: Sequence[str], photos: Sequence[str], photos_only: bool) -> bool:
        options = [word for photo in photos for word in ("--photos", photo)] + ["--photos-only"] * photos_only
        line = f"{name} = {' | '.join(phrases)}" if phrases else name
        try:
            run("add", BANK, line, *options)
        except AssertionError:
            run("add", BANK, line, *options, code=2)
            return False
        return True

    yield put


@contextmanager
def http(bundle: Path) -> Iterator[Put]:
    settings = Settings(bundle=bundle, bank=BANK.absolute(), key="k", device="cpu", threads=1)
    headers = {"Authorization": "Bearer k"}
    with local_server(settings) as local, httpx2.Client(base_url=local.url, headers=headers, timeout=30) as client:

        def put(name: str, phrases: Sequence[str], photos: Sequence[str], photos_only: bool) -> bool:
            data: dict[str, Any] = {"phrases": phrases} if phrases else {}
            data |= {"photos_only": "true"} if photos_only else {}
            files = [("image", ("x.png", Path(photo).read_bytes(), "image/png")) for photo in photos]
            content: dict[str, Any] = {"files": files, "data": data} if photos else {"json": data} if data else {}
            answer = client.put("/v1/classes/" + urllib.parse.quote(name), **content)
            assert answer.status_code in (200, 201, 409), answer.text
            return answer.status_code != 409

        yield put


@contextmanager
def python(bundle: Path) -> Iterator[Put]:
    classifier = Classifier.open(bundle, bank=BANK, device="cpu")

    def put(name: str, phrases: Sequence[str], photos: Sequence[str], photos_only: bool) -> bool:
        try:
            with warnings.catch_warnings(action="ignore", category=FindingWarning):
                classifier.add(name, photos or None, phrases=phrases or None, photos_only=photos_only)
        except ClassNameError:
            return False
        return True

    yield put


def photos(colour: str, count: int) -> list[str]:
    generator = np.random.default_rng(len(colour))
    paths = [f"{colour}/{number}.png" for number in range(count)]
    for path in paths:
        paint(path, COLOURS[colour], generator)
    return paths


def content() -> list[Any]:
    fields = ("name", "phrases", "aliases", "threshold", "photos_only")
    return [
        [*(getattr(entry, field) for field in fields), entry.photos.digests, entry.embedding.tolist()]
        for entry in ClassBank.load(BANK).entries.values()
    ]


def test_every_surface_adds_with_one_meaning(bundle_path: Path) -> None:
    red, green, iris = photos("red", 4), photos("green", 4), photos("iris", 4)
    steps: list[tuple[Any, ...]] = [
        ("mug", (), (), False),
        ("mug", ("cup", "beaker"), (), False),
        ("MUG", (), red[:2], False),  # its embedding stays
        ("rename", "mug", "tankard"),
        ("set", "tankard", "--alias", "stein"),
        ("Stein", (), red[1:], False),  # photos for an alias go to its class
        ("stein", (), (), False),
        ("stein", ("a stein",), green[:1], False),
        ("tankard", ("a tankard",), green[:1], False),
        ("rollback", "--steps", "1"),
        ("SKU-1", (), iris[:2], True),
        ("sku-1", (), iris[2:], False),
        ("remove", "stein"),
        ("tankard", (), green, False),
        ("Tankard", (), (), False),
        ("tankard", (), iris[3:], False),  # a photo of SKU-1 moves
        ("move", iris[3], iris[2], "--to", "sku-1"),
        ("undo",),
    ]
    states: dict[str, list[Any]] = {}
    for surface in (command, http, python):
        start()
        states[surface.__name__] = []
        with surface(bundle_path) as put:
            for step in steps:
                done = put(*step) if isinstance(step[-1], bool) else run(step[0], BANK, *step[1:])
                states[surface.__name__].append([bool(done), content()])
    first = states.pop("command")
    assert [done for done, _ in first] == [step[:2] not in (("stein", ()), ("stein", ("a stein",))) for step in steps]
    assert [[len(entry[5]) for entry in state[-2:]] for _, state in first[-4:]] == [[4, 4], [3, 5], [4, 4], [3, 5]]
    assert [state[-1][1:3] for _, state in first[3:8]] == [[("cup", "beaker"), ()]] + 4 * [
        [("cup", "beaker"), ("stein",)]
    ]
    assert [len(state[-1][5]) for _, state in first[4:9]] == [2, 4, 4, 4, 5]
    for surface, other in states.items():
        for number, (one, two) in enumerate(zip(first, other, strict=True)):
            assert one[0] == two[0], (surface, steps[number])
            assert [entry[:-1] for entry in one[1]] == [entry[:-1] for entry in two[1]], (surface, steps[number])
            np.testing.assert_allclose([e[-1] for e in one[1]], [e[-1] for e in two[1]], atol=1e-6)


SLOW = {
    "add": "_each_photo",
    "remove": "_each_photo",
    "python": "_each_photo",
    "http": "class_rows",
    "carry": "embed_phrases",
    "calibrate": "fit_calibration",
    "fit": "fit_model",
    "learn": "adapt",
}
"""The step of a change that takes long: it reads photos, embeds names or fits."""


@pytest.mark.parametrize("change", SLOW)
def test_the_bank_is_free_during_slow_steps(change: str, bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change applies to the bank as another process has left it meanwhile, and loses nothing."""
    start()
    photos("iris", 60)
    run("add", BANK, "iris", "--photos", "iris/0.png")
    for name in ("red", "green"):
        photos(name, 30)
        if change in ("fit", "learn"):
            run("add", BANK, name, "--photos", name)
    if change == "learn":
        run("fit", BANK)
    work, beside = getattr(Classifier, SLOW[change]), list[ClassBank]()

    def step(self: Classifier, *arguments: Any, **options: Any) -> Any:
        if not beside:
            beside.append(set_class(ClassBank.load(BANK), "red", threshold=0.25))
            beside[0].save(BANK)  # takes the lock
        return work(self, *arguments, **options)

    monkeypatch.setattr(Classifier, SLOW[change], step)
    match change:
        case "add":
            run("add", BANK, "mug", "--photos", "iris")
        case "calibrate":
            Path("labelled").mkdir()
            for name in ("red", "green"):
                Path(name).rename(Path("labelled", name))
            run("calibrate", BANK, "--photos", "labelled")
        case "carry":
            run("carry", BANK, "--bundle", write_bundle(Path("other"), ["red", "teal"], encoder_digest="f" * 64))
        case "fit":
            run("fit", BANK)
        case "http":
            with http(bundle_path) as put:
                assert put("mug", (), (), False)
        case "learn":
            rows = ClassBank.load(BANK).photos_of("red").rows
            call = {"embeddings": [base64.b64encode(row.tobytes()).decode() for row in rows], "all_known": True}
            with local_server(Settings(bundle=bundle_path, bank=BANK.absolute(), key="k", device="cpu")) as local:
                headers = {"Authorization": "Bearer k"}
                assert httpx2.post(f"{local.url}/v1/learn", headers=headers, json=call, timeout=30).status_code == 200
        case "python":
            with warnings.catch_warnings(action="ignore", category=FindingWarning):
                Classifier.open(bundle_path, bank=BANK).add("mug", "iris")
        case "remove":
            run("remove", BANK, "iris", "--photos", "iris/0.png")
    bank = ClassBank.load(BANK)
    assert bank.entry("red").threshold == 0.25
    assert bank.history[-1].action == {"remove": "forget", "python": "add", "http": "add"}.get(change, change)
    assert bank.log.last == beside[0].log.last + 1
    moved = change in ("add", "python")  # to mug
    assert len(bank.photos_of("iris")) == (change not in ("remove", "carry") and not moved)


def test_findings_in_python_are_warnings_before_the_change(bundle_path: Path) -> None:
    classifier = Classifier.open(bundle_path, device="cpu")
    with pytest.raises(FindingWarning, match="is spelled almost like the class 'red'") as raised:
        classifier.add("R-ed")  # warnings are errors in these tests
    assert (raised.value.finding.kind, "R-ed" in classifier.bank.names) == ("duplicate", False)
    assert classifier.add("owl", threshold=0.25).bank.entry("owl").threshold == 0.25
