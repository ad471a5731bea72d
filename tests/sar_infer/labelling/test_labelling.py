"""A heap of the shipped garments, answered by a script that knows the folders' names."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sar_infer import Classifier
from sar_infer.errors import ClassNameError, InputError, WriteError
from sar_infer.images.inputs import read_class_list
from sar_infer.labelling import Labelling, Question, rescue
from sar_infer.labelling.estimate import interval
from sar_infer.labelling.heap import held_out

CLOTHES = Path(__file__).parents[3] / "examples" / "clothes" / "test"


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier()


def truth(photo: str) -> str:
    return Path(photo).parent.name


def truthful(heap: Labelling, question: Question) -> None:
    name = truth(question.photos[0])
    heap.answer({photo: name for photo in question.photos if truth(photo) == name})


@pytest.mark.slow
def test_a_session_from_a_heap_to_a_bank(tmp_path: Path, classifier: Classifier) -> None:
    bank, audits = tmp_path / "shop.safetensors", list[int]()
    with Labelling(CLOTHES, bank=bank, classifier=classifier, by="Ann") as heap:
        heap.wait()
        for number in range(60):  # ten of them held out
            question = heap.ask()
            assert question is not None and question == heap.ask()
            if question.held_out:
                assert question.kind == "photo"
                audits.append(number)
            truthful(heap, question)
        assert audits == [*range(23, 60, 4)]
        estimate = heap.estimate()
        assert (estimate.answers, estimate.held_out) == (60, 10) and estimate.why and not estimate.enough
        assert estimate.accuracy is not None and estimate.low < estimate.accuracy < estimate.high < 1
        assert [look.answers for look in heap.curve()] == [10, 20, 30, 40, 50, 60]
        wrong = sum(len(photos) for _, _, photos in heap.confusions())
        assert wrong == round((1 - estimate.accuracy) * 10)
        guesses = heap.guesses("hat")
        assert {guess.name for guess in guesses} == {"hat"} and {guess.answered for guess in guesses} == {True, False}
        assert [g.probability for g in guesses] == sorted((g.probability for g in guesses), reverse=True)
        likely = heap.ask("hat")
        assert likely is not None and likely.kind == "class" and not likely.held_out
        counts = heap.classes()
        assert sum(counts.values()) > 60 and len(counts) == 10
        heap.save()
        taught = {digest for photos in Classifier(bank=bank).bank.photos.values() for digest in photos.digests}
        assert len(taught) == sum(counts.values()) - 10
        assert heap.folders(tmp_path / "out") == heap.list(tmp_path / "out.csv") == sum(counts.values())
        assert {name: len(files) for name, files in read_class_list(tmp_path / "out.csv").items()} == counts
        assert {folder.name: len([*folder.iterdir()]) for folder in (tmp_path / "out").iterdir()} == counts
        with pytest.raises(InputError, match="exists"):
            heap.folders(tmp_path / "out")
        truthful(heap, heap.ask() or question)
        heap.save()  # the bank of its own is replaced
    step, *_ = Classifier(bank=bank).bank.history
    assert step.by == "Ann"


def test_undo_skip_none_and_moves_outlive_a_restart(tmp_path: Path, classifier: Classifier) -> None:
    bank = tmp_path / "shop.safetensors"
    with Labelling(CLOTHES, bank=bank, classifier=classifier) as heap:
        heap.wait()
        assert heap.undo() == ()
        first = heap.ask()
        assert first is not None
        heap.answer({first.photos[0]: "  hat "})
        assert heap.undo()[0] == first.photos[0] and not heap.classes()
        assert (heap.ask() or first).photos[0] == first.photos[0]
        heap.skip()
        second = heap.ask()
        assert second is not None and second.photos[0] != first.photos[0]
        heap.answer({second.photos[0]: None})
        assert heap.answer_of(second.photos[0]) is None and not heap.classes()
        heap.answer({second.photos[0]: "Hat", first.photos[0]: "HAT"})
        assert heap.classes() == {"Hat": 2}
        for labels, error in (
            ({}, InputError),
            ({"strange.jpg": "hat"}, InputError),
            ({second.photos[0]: " "}, ClassNameError),
        ):
            with pytest.raises(error):
                heap.answer(labels)
        with pytest.raises(WriteError, match=r"process \d+ has it open"):
            Labelling(CLOTHES, bank=bank, classifier=classifier)
    (tmp_path / "moved").symlink_to(CLOTHES)
    with Labelling(tmp_path / "moved", bank=bank, classifier=classifier) as heap:
        heap.wait()
        assert heap.classes() == {"Hat": 2}
        assert {Path(guess.photo).parts[-2:] for guess in heap.guesses("Hat") if guess.answered} == {
            Path(photo).parts[-2:] for photo in (first.photos[0], second.photos[0])
        }


def test_a_list_with_classes_and_a_small_heap(tmp_path: Path, classifier: Classifier) -> None:
    photos = [*sorted((CLOTHES / "hat").iterdir())[:4], *sorted((CLOTHES / "dress").iterdir())[:4]]
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    rows = [f"{'hat' if number == 0 else ''},{photo}\n" for number, photo in enumerate(photos)]
    (tmp_path / "heap.csv").write_text("".join(["class,photo\n", *rows, ",bad.jpg\n"]))
    with Labelling(tmp_path / "heap.csv", bank=tmp_path / "shop.safetensors", classifier=classifier) as heap:
        heap.wait()
        count = 0
        while (question := heap.ask()) is not None:
            assert not question.held_out
            truthful(heap, question)
            count += 1
        assert count <= 7 and heap.classes() == {"hat": 4, "dress": 4} and len(heap.unreadable) == 1
        assert "fewer than 20" in heap.estimate().why
    with (
        Labelling([tmp_path / "bad.jpg"], bank=tmp_path / "two.safetensors", classifier=classifier) as heap,
        pytest.raises(InputError, match="none of 1 photos"),
    ):
        heap.wait()


SCRIPT = """
import sys
from pathlib import Path
from sar_infer.labelling import Labelling
with Labelling(sys.argv[1], bank=sys.argv[2]) as heap:
    heap.wait()
    while question := heap.ask():
        photo = question.photos[0]
        heap.answer({photo: Path(photo).parent.name})
        print(photo, flush=True)
"""


@pytest.mark.slow
def test_a_kill_loses_no_confirmed_answer(tmp_path: Path, classifier: Classifier) -> None:
    bank = tmp_path / "shop.safetensors"
    confirmed = list[str]()
    for many in (1, 4, 9):
        with subprocess.Popen([sys.executable, "-c", SCRIPT, CLOTHES, bank], stdout=subprocess.PIPE, text=True) as run:
            assert run.stdout is not None
            confirmed += [run.stdout.readline().rstrip("\n") for _ in range(many)]
            run.send_signal(signal.SIGKILL)
            confirmed += [line.rstrip("\n") for line in run.stdout if line.endswith("\n")]
    assert len(set(confirmed)) == len(confirmed) >= 14
    with Labelling(CLOTHES, bank=bank, classifier=classifier) as heap:
        heap.wait()
        assert [heap.answer_of(photo) for photo in confirmed] == [*map(truth, confirmed)]


def test_a_damaged_file_is_left_as_it_is_and_its_answers_can_be_written(tmp_path: Path, classifier: Classifier) -> None:
    bank, answers = tmp_path / "shop.safetensors", tmp_path / "shop.answers"
    with Labelling(CLOTHES, bank=bank, classifier=classifier) as heap:
        heap.wait()
        for photo in heap.photos[:100]:
            heap.answer({photo: truth(photo)})
    content = bytearray(answers.read_bytes())
    content[-4096:] = b"\xff" * 4096
    answers.write_bytes(content)
    with pytest.raises(InputError, match="damaged.*rescue"):
        Labelling(CLOTHES, bank=bank, classifier=classifier)
    assert answers.read_bytes() == content
    assert rescue(answers, tmp_path / "answers.csv") >= 20
    assert all(
        Path(p).parent.name == name for name, of in read_class_list(tmp_path / "answers.csv").items() for p in of
    )


def test_the_interval_covers_the_truth_and_the_held_out_part_is_random() -> None:
    assert interval(8, 8) == pytest.approx((0.05 ** (1 / 8), 1.0))  # its closed form
    low, high = interval(9, 10)
    assert low == pytest.approx(0.6058, abs=1e-4) and high == pytest.approx(0.9949, abs=1e-4)
    places = [held_out(str(number).encode(), 0.25) for number in range(4000)]
    assert 900 < sum(place is not None for place in places) < 1100
