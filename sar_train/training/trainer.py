"""One run from settings to record: the use case under ``sar-train``, callable from Python."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from sar_infer.bundle.card import expectation
from sar_train.clip import backbone as backbones
from sar_train.config.run import RunConfig
from sar_train.data.dataset import DEMO
from sar_train.data.feature_file import save_features
from sar_train.data.opening import locate
from sar_train.data.progress import ProgressCallback
from sar_train.data.task import Evaluated
from sar_train.errors import DivergedError, RunError
from sar_train.methods.base import GDA
from sar_train.training import checkpoint, fitting, loop, measures
from sar_train.training.checkpoint import FittedClassModel
from sar_train.training.context import RunContext, open_data, prepare
from sar_train.training.identity import outcome_settings, regulariser_of, regulariser_settings
from sar_train.training.page import PAGE, write_page
from sar_train.training.prompted import PromptedCLIP
from sar_train.training.record import (
    CLASS_MODEL,
    CLASS_MODEL_HANDCRAFTED,
    CLASS_MODEL_SWITCHED,
    Answers,
    in_words,
    make_record,
    scores,
)
from sar_train.training.state import State

SAVE_EVERY = 5.0
"""Seconds between saved states."""


def run(
    config: RunConfig,
    out: Path,
    *,
    tell: ProgressCallback = lambda text: None,
    resume: bool = True,
    overwrite: bool = False,
    page: bool = False,
    for_tables: bool = False,
    prepared: Callable[[RunContext], object] = lambda context: None,
) -> checkpoint.Run:
    """Make one run and leave ``prompts.safetensors`` and ``record.json`` in ``out``.

    Args:
        config: the settings.
        out: the run's folder; an unfinished run of the same settings in it is continued.
        tell: gets progress as short lines.
        resume: False starts anew.
        overwrite: replace a finished run, once it is clear that the new one can start.
        page: also write the evaluation of its test photos, as `write_page` does.
        for_tables: train the method even where the hand-crafted prompt is used, as tables of methods need it.
        prepared: called before anything is learned.

    Raises:
        SarTrainError: something cannot be used; nothing is half-written.
    """
    began = time.monotonic()
    if (out / checkpoint.RECORD).is_file() and not overwrite:
        raise RunError(f"{out} contains a finished run: choose another --out, or replace it with --overwrite")
    check_run_folder(out, config)
    with _memory(config.device):
        context = prepare(config, tell)
        prepared(context)
        zero_shot = measures.zero_shot(context)
        jointly = asdict(zero_shot.open.images) if zero_shot.open else None
        tell(f"zero-shot: {in_words(scores(zero_shot.parts), jointly)}")
        probe = measures.probe_accuracy(context)
        names = measures.held_out(context)
        prepare_seconds = time.monotonic() - began
        if overwrite and (out / checkpoint.RECORD).is_file():  # else a killed run of this very command is in it
            remove(out)
        out.mkdir(parents=True, exist_ok=True)
        learned = _learn(context, out, names, for_tables=for_tables, resume=resume, tell=tell)
        learned_at = time.monotonic()
        result, others, logits = _evaluate(context, learned, zero_shot)
        after = None if learned.prompted is None else measures.relations(context, learned.prompted, names)
        record = make_record(
            context,
            result,
            others,
            zero_shot,
            linear_probe={"base_accuracy": probe},
            relations={"names": len(names), "before": learned.relations, "after": after},
            history=learned.history,
            timing={
                "prepare_seconds": prepare_seconds,
                **learned.seconds,
                "evaluate_seconds": time.monotonic() - learned_at,
            },
            statistics=learned.fitted.record if learned.fitted else None,
        )
        if page:  # before the record, which says that the run is finished
            write_page(context, logits, out)
        return _store(context, learned, record, out)


@contextlib.contextmanager
def _memory(device: str) -> Iterator[None]:
    """Raise RunError where memory does not suffice, with the settings that need less."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = f"{type(error).__name__}: {error}"  # of Python and torch, its CPU allocator, oneDNN, cuBLAS and cuDNN
        if not any(sign in text for sign in ("MemoryError", "allocate memory", "could not create a", "ALLOC_FAILED")):
            raise
        less = "fewer runs at a time, --set micro-batch=1, --set precision=bf16, or with SAR --set sar.subset=0.1"
        raise RunError(f"out of memory on {device}: try {less}") from None


@dataclass(frozen=True)
class _Learned:
    """The prompt and the class model that a run has learned; None where it learns none.

    Attributes:
        prompted: the learned prompt on its backbone.
        choice: the prompt of the class model.
        fitted: the class model.
        relations: SAR's measure before training.
        history: of the training.
        seconds: spent on training and on the class model.
    """

    prompted: PromptedCLIP | None
    choice: fitting.Choice | None
    fitted: FittedClassModel | None
    relations: float | None
    history: list[dict[str, float]]
    seconds: dict[str, float]


def _learn(
    context: RunContext, out: Path, names: Sequence[str], *, for_tables: bool, resume: bool, tell: ProgressCallback
) -> _Learned:
    """Choose the prompt of the class model, train it where it is needed, and fit the class model.

    Raises:
        DivergedError: training diverged; what was saved on the way is removed.
        RunError: a state in ``out`` is of another run.
    """
    began = time.monotonic()
    prompted, relations, history, spent = None, None, list[dict[str, float]](), 0.0
    try:
        choice, with_method = _choose(context, out, for_tables=for_tables, resume=resume, tell=tell)
        chosen = time.monotonic()
        if with_method:
            prompted = PromptedCLIP(context.backbone, context.method, context.teacher, context.task.class_names)
            relations = measures.relations(context, prompted, names)
            state, spent = _start(context, out, resume=resume, tell=tell)
            loop.train(context.step(state), context.schedule, _after_epoch(context, out, tell, spent))
            history = state.history
            if not prompted.embed(context.task.class_names).isfinite().all():
                raise DivergedError(
                    "training diverged: the learned prompt gives embeddings that are not finite at --learning-rate "
                    f"{context.schedule.learning_rate:g}; take a smaller one"
                )
    except DivergedError:
        remove(out)  # what was saved on the way leads to nothing
        raise
    trained = time.monotonic()
    fitted = fitting.finish(context, choice, prompted) if choice else None
    of_model = chosen - began + time.monotonic() - trained
    seconds = {"train_seconds": spent + trained - chosen, "statistics_seconds": of_model}
    return _Learned(prompted, choice, fitted, relations, history, seconds)


def _evaluate(
    context: RunContext, learned: _Learned, zero_shot: Answers
) -> tuple[Answers, dict[str, Answers], Callable[[Evaluated], torch.Tensor]]:
    """Return the method's answers, those in the other ways, and logits (N, C) of the trained classes as a bundle has.

    Where nothing was trained, the method answers as zero-shot does.
    """
    prompted, choice, fitted = learned.prompted, learned.choice, learned.fitted
    images = functools.cache(lambda evaluated: measures.image_features(prompted, context.features, evaluated))
    result, others = (zero_shot, {}) if prompted is None else measures.answers(context, prompted, images)
    if not choice or not fitted:
        return result, others, measures.bundle_logits(context, prompted, images)
    own = images if fitted.prompt == fitting.LEARNED else lambda evaluated: evaluated.features
    others |= _with_class_model(context, prompted, choice, fitted, own)
    if context.config.method == GDA:
        result = others[CLASS_MODEL]
    way = fitting.logits_with(context, prompted, fitted)
    return result, others, lambda evaluated: way(own(evaluated), context.task.class_names)


def _store(context: RunContext, learned: _Learned, record: dict[str, Any], out: Path) -> checkpoint.Run:
    """Write prompts, class model and record, remove the states of the unfinished run, and return what was written."""
    config, trained = context.config, learned.prompted is not None
    weights = {regulariser_of(config.sections): regulariser_settings(config).weight} if trained and config.sar else {}
    whole = checkpoint.Run(
        tensors={k: v.detach().clone() for k, v in context.method.state_dict().items()} if trained else {},
        method=config.method if trained else checkpoint.HANDCRAFTED,
        settings=context.settings[config.method] if trained else {},
        backbone_name=config.backbone,
        pretrained=config.pretrained,
        weights_digest=context.backbone.weights_digest,
        template=context.teacher if trained else context.template,
        class_names=tuple(context.task.class_names),
        regularisers=weights,
        record=record,
    )
    if learned.fitted:
        checkpoint.save_class_model(out, learned.fitted)
    else:  # a run that failed while it was saved may have left some
        checkpoint.remove_class_model(out)
    checkpoint.save_run(out, whole)
    checkpoint.remove_state(out)
    return whole


def _choose(
    context: RunContext, out: Path, *, for_tables: bool, resume: bool, tell: ProgressCallback
) -> tuple[fitting.Choice | None, bool]:
    """Fit the class model under the hand-crafted prompt, compare the learned one, and say if that is to be trained."""
    labels = context.task.labels.numpy()
    needed = fitting.trainings(context, labels, for_tables=for_tables)
    if not context.config.statistics:
        return None, needed.whole == "always"
    first = fitting.first(context)
    entry = {"classes": len(context.task.class_names), "rivals": int(first.model.rivals), "defaults": first.why}
    tell(f"class model, hand-crafted prompt: {expectation(entry | {'expected': fitting.expected(first)})}")
    plain = context.config.prompt == checkpoint.HANDCRAFTED or not context.method.trains
    prompt = checkpoint.HANDCRAFTED if plain else fitting.LEARNED
    choice = fitting.Choice(prompt, first, {}, needed.why)
    if needed.halves:
        stored = _stored(context, out, checkpoint.HALVES) if resume else None
        try:
            if stored:
                halves = tuple(tensor.numpy() for _, tensor in sorted(stored[0].items()))
            else:
                tell("training the prompt on each half of the classes, to compare it")
                halves = fitting.train_halves(context, tell)
                tensors = {str(number): torch.from_numpy(rows) for number, rows in enumerate(halves)}
                checkpoint.save_state(out, tensors, _identity(context), checkpoint.HALVES)
            choice = fitting.compare(context, halves, first)
            tell(
                f"held-out classes: learned prompt {choice.scores['learned']:.1f} %, hand-crafted "
                f"{choice.scores['handcrafted']:.1f} %: the {choice.prompt} one is used, since {choice.why}"
            )
        except DivergedError as error:
            tell(f"Warning: the prompts were not compared ({error})")
            choice = dataclasses.replace(choice, why="not compared: training on half of the classes failed")
    return choice, needed.whole == "always" or (needed.whole == "if better" and choice.prompt == fitting.LEARNED)


def _with_class_model(
    context: RunContext,
    prompted: PromptedCLIP | None,
    choice: fitting.Choice,
    fitted: FittedClassModel,
    images: measures.FeaturesOf,
) -> dict[str, Answers]:
    """Evaluate the class model of a run; under a learned prompt also switched, and that of the hand-crafted prompt."""

    def evaluate(images: measures.FeaturesOf, *arguments: Any, **options: Any) -> Answers:
        return measures.evaluate_all(context.task, images, fitting.logits_with(context, *arguments, **options))

    answers = {CLASS_MODEL: evaluate(images, prompted, fitted)}
    if context.task.base is not None and context.task.new is not None and fitted.prompt == fitting.LEARNED:
        plain = fitting.finish(context, dataclasses.replace(choice, prompt=checkpoint.HANDCRAFTED), None)
        answers[CLASS_MODEL_SWITCHED] = evaluate(images, prompted, fitted, switched=True)
        answers[CLASS_MODEL_HANDCRAFTED] = evaluate(lambda evaluated: evaluated.features, None, plain)
    return answers


def check_run_folder(out: Path, config: RunConfig) -> None:
    """Raise RunError if no run can be written here, before minutes are spent on encoding images."""
    _check_folder(out, "--out")
    photos, dataset = locate(config.data, Path(config.data_root) if config.data_root else None)
    if config.data != DEMO and not dataset and photos.is_dir() and out.resolve().is_relative_to(photos.resolve()):
        raise RunError(f"{out}: --out lies in the folder of photos {photos}; name a folder outside of it")


def check_features_file(path: Path) -> None:
    """Raise RunError if features cannot be written to this file, or not be read again, before the run."""
    if path.suffix != ".safetensors" or path.is_dir():
        raise RunError(f"{path}: expected a file with the suffix .safetensors; choose another --save-features")
    _check_folder(path.parent, "--save-features")


def _check_folder(folder: Path, option: str) -> None:
    existing = next((path for path in (folder, *folder.parents) if path.exists()), Path())
    if not existing.is_dir():
        raise RunError(f"{folder}: expected a folder, but {existing} is none; choose another {option}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise RunError(f"{folder}: {existing} cannot be written to; choose another {option}")


def write_features(
    config: RunConfig, path: Path, *, tell: ProgressCallback = lambda text: None, command: str = ""
) -> None:
    """Write the features of all images (plain views) to a file that ``sar-train`` reads instead of them."""
    backbone = backbones.load(config.backbone, config.pretrained, device=config.device)
    save_features(open_data(config, backbone, tell), path, {"command": command} if command else {})


def _start(context: RunContext, out: Path, *, resume: bool, tell: ProgressCallback) -> tuple[State, float]:
    """Return the state to continue from, and the seconds of training that are in it."""
    state = context.start()
    stored = _stored(context, out, checkpoint.STATE) if resume else None
    if stored:
        tensors, meta = stored
        state.restore(tensors, meta["epoch"], meta["history"])
        tell(f"taking up the run after epoch {state.epoch}")
        return state, meta["seconds"]
    return state, 0.0


def _identity(context: RunContext) -> dict[str, Any]:
    """Return what a stored state must have in common with the run that resumes it."""
    return {"config": outcome_settings(context.config), "learned_from": context.learned_from}


def _stored(context: RunContext, out: Path, name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Return tensors and metadata of a state of this very run; None if there is none."""
    stored = checkpoint.load_state(out, name)
    if stored is None:
        return None
    if other := _differing(stored[1]["config"], outcome_settings(context.config)):
        raise RunError(
            f"{out} contains an unfinished run with other settings ({other}): choose another --out, or --no-resume"
        )
    if stored[1]["learned_from"] != context.learned_from:
        raise RunError(
            f"{out} contains an unfinished run that learns from other photos or classes, {context.config.data} has "
            "changed: choose another --out, or --no-resume"
        )
    return stored


def _differing(stored: dict[str, Any], current: dict[str, Any], before: str = "") -> str:
    """Name the settings that differ, with both values; the empty string if none does."""
    differences = []
    for key in dict.fromkeys([*stored, *current]):
        then, now = stored.get(key), current.get(key)
        if isinstance(then, dict) and isinstance(now, dict):
            differences.append(_differing(then, now, f"{before}{key}."))
        elif then != now:
            differences.append(f"{before}{key} was {json.dumps(then)}, now {json.dumps(now)}")
    return "; ".join(filter(None, differences))


def _after_epoch(context: RunContext, out: Path, tell: ProgressCallback, spent: float) -> Callable[[State], None]:
    """Show the loss and what is left after each epoch; save the state every few seconds."""
    began = saved = time.monotonic()
    first: tuple[int, float] | None = None  # the first epoch of this run, which also warms up, and when it ended

    def after(state: State) -> None:
        nonlocal saved, first
        now = time.monotonic()
        first = first or (state.epoch, now)
        terms = ", ".join(f"{k} {v:.3g}" for k, v in state.history[-1].items() if k not in ("epoch", "learning_rate"))
        line = f"epoch {state.epoch}/{context.schedule.epochs}  {terms}"
        if (timed := state.epoch - first[0]) and (coming := context.schedule.epochs - state.epoch):
            line += f"  about {(now - first[1]) / timed * coming:.0f} s left"
        tell(line)
        if now - saved > SAVE_EVERY and state.epoch < context.schedule.epochs:
            meta = _identity(context) | {"epoch": state.epoch, "history": state.history, "seconds": spent + now - began}
            checkpoint.save_state(out, state.tensors(), meta)
            saved = now

    return after


def remove(out: Path) -> None:
    """Delete a run's own files and, if nothing else is in it, its folder."""
    for name in (checkpoint.PROMPTS, checkpoint.RECORD, PAGE):
        (out / name).unlink(missing_ok=True)
    checkpoint.remove_class_model(out)
    checkpoint.remove_state(out)
    if out.is_dir() and not any(out.iterdir()):
        shutil.rmtree(out)
