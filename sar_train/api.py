"""Training and export as two calls: what ``sar-train`` and ``sar-export`` do, with objects instead of printed text.

torch is imported when one of them is called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, Unpack

if TYPE_CHECKING:
    from sar_infer.bundle.bundle import Bundle
    from sar_infer.bundle.manifest import Scores
    from sar_infer.evaluation.labels import LabelIssue
    from sar_infer.text.names import Classes
    from sar_train.config.run import RunConfig
    from sar_train.export.source import ExportSource
    from sar_train.training.context import RunContext
    from sar_train.training.preview import Preview

Place: TypeAlias = str | Path
ProgressCallback: TypeAlias = Callable[[str], None]
MOST_PHOTOS = 200
"""Images that an export is compared with torch on; of a larger folder, as many at even steps."""


class ExportOptions(TypedDict, total=False):
    """Options of `export`: those of ``sar-export``, by the same names.

    Attributes:
        classes: Names of the bank: a list, phrases by name, or a class file. Default: the classes of the run, none with
            ``handcrafted``.
        handcrafted: Instead of a run: an untuned backbone with this template, such as ``a photo of a {}.``
        backbone: With ``handcrafted`` (default ``sar-mini``), or for a checkpoint that does not name its own.
        pretrained: Tag or file of the backbone's weights.
        tokenizer: ``tokenizer.json`` of a backbone whose tokenizer is on the hub, instead of a download.
        photos: Folder of images on which to compare the graphs with torch; generated images by default.
        approximate: ``mean-image`` for a method whose prompt depends on the image.
        text: ``switched``: the learned prompt for the trained classes, the hand-crafted prompt for all other names.
        command: The command to note in the manifest. Default: this call.
    """

    classes: Place | Classes | None
    handcrafted: str | None
    backbone: str | None
    pretrained: Place | None
    tokenizer: Place | None
    photos: Place | None
    approximate: Literal["mean-image"] | None
    text: Literal["prompt", "switched"] | None
    command: str


@dataclass(frozen=True)
class TrainedRun:
    """A finished run.

    Attributes:
        path: Its folder, which `export` takes.
        scores: Accuracy in percent on the held-out images of the trained (base) and the new classes, and their
            harmonic mean, with the class model where one was fitted; None where there was nothing to measure.
        zero_shot: The same for the hand-crafted prompt.
        record: The content of ``record.json``, see docs/files.md.
        page: The evaluation of its test photos, an HTML file; None where there was nothing to measure.
        label_issues: Photos that may lie in the wrong folder, the least probable label first.
        label_page: The page that shows them, an HTML file; None if there are none.
    """

    path: Path
    scores: Scores
    zero_shot: Scores
    record: Mapping[str, Any]
    page: Path | None = None
    label_issues: Sequence[LabelIssue] = ()
    label_page: Path | None = None


def train(  # noqa: PLR0913 - what is no setting
    photos: Place,
    *,
    out: Place | None = None,
    config: Place | Mapping[str, Any] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    overwrite: bool = False,
    resume: bool = True,
    save_features: Place | None = None,
    strict: bool = False,
    progress: ProgressCallback | None = None,
    **options: Any,
) -> TrainedRun:
    """Learn a prompt from photos, as ``sar-train`` does.

    ::

        from sar_train import train

        run = train("photos/", out="runs/mine", shots=8, progress=print)
        print(run.scores.base_accuracy, run.zero_shot.base_accuracy)

    Args:
        photos: A folder with one folder of photos per class, a list, a dataset by name, a feature file, or ``demo``.
        out: The run's folder; an unfinished run of the same settings in it is continued. Default: a folder in
            ``runs``, named after data, method and seed.
        config: TOML file with any of the settings; arguments override it.
        settings: Any setting of a method or of SAR by section, such as ``{"sar": {"tau": 0.05}}``.
        overwrite: Replace a finished run in ``out``.
        resume: False starts from the beginning.
        save_features: Also write the features of all photos to this file.
        strict: Refuse to train if a photo may lie in the wrong folder.
        progress: Called with short lines during the work, such as ``epoch 3/50 …``.
        **options: Any setting of `sar_train.config.run` by its name, such as ``shots``; a path may be a
            `pathlib.Path`. Also ``on``, the method that ``dept`` extends, and ``sar_weight``, short for
            ``settings={"sar": {"weight": …}}``. None means the default.

    Raises:
        ConfigError: settings are unknown, out of range or contradictory; the message lists all of them.
        DataError: the photos cannot be used, or with ``strict`` one may lie in the wrong folder.
        BackboneError: the backbone is unknown, or its weights cannot be loaded.
        ClassNameError: a class name does not fit the text tower.
        RunError: ``out`` or ``save_features`` cannot be used, ``out`` holds another run, or memory does not suffice.
        ImageError: a photo cannot be read (an error of `sar_infer`).
    """
    from sar_infer.bundle.manifest import Scores
    from sar_infer.storage.files import locked
    from sar_train.errors import RunError
    from sar_train.training import labels, trainer
    from sar_train.training.page import PAGE
    from sar_train.training.record import CLASS_MODEL

    tell = progress or _silent
    chosen = run_config(photos, config, settings, **options)
    folder = Path("runs") / default_name(chosen) if out is None else Path(out)
    chosen = replace(chosen, cache_dir=chosen.cache_dir or str(folder.parent / ".features"))
    trainer.check_run_folder(folder, chosen)
    if save_features is not None:
        trainer.check_features_file(Path(save_features))
    issues: list[LabelIssue] = []
    pages: list[Path | None] = []

    def prepared(context: RunContext) -> None:
        check = labels.check_task(context)
        issues.extend(check.issues)
        pages.append(labels.report(check, label_page(folder), chosen.data, tell, strict=strict))

    try:
        with locked(folder.resolve()):
            run = trainer.run(
                chosen, folder, tell=tell, resume=resume, overwrite=overwrite, page=True, prepared=prepared
            )
    except BlockingIOError:
        raise RunError(f"{folder}: another sar-train is at this run; wait for it, or choose another --out") from None
    if save_features is not None:
        trainer.write_features(chosen, Path(save_features), tell=tell, command=" ".join(sys.argv))
    metrics = run.record["other_metrics"].get(CLASS_MODEL, run.record["metrics"])
    scores, zero_shot = (
        Scores(accuracies["base_accuracy"], accuracies["new_accuracy"], accuracies["harmonic_mean"])
        for accuracies in (metrics, run.record["zero_shot"])
    )
    page = folder / PAGE
    evaluated = page if page.is_file() else None
    return TrainedRun(folder, scores, zero_shot, run.record, evaluated, tuple(issues), pages[0])


def label_page(folder: Path) -> Path:
    """Return the page of photos that may lie in the wrong folder, next to the folder of a run."""
    return folder.with_name(f"{folder.name}-labels.html")


def preview(
    photos: Place,
    *,
    config: Place | Mapping[str, Any] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    progress: ProgressCallback | None = None,
    **options: Any,
) -> Preview:
    """Look at what `train` would do, as ``sar-train --plan`` does: nothing is trained, and nothing is written.

    Args:
        photos: As for `train`.
        config: As for `train`.
        settings: As for `train`.
        progress: Called with short lines during the work.
        **options: As for `train`.

    Raises:
        ConfigError: settings are unknown, out of range or contradictory; the message lists all of them.
        DataError: the photos cannot be used.
        BackboneError: the backbone is unknown, or its weights cannot be loaded.
    """
    from sar_train.training.preview import preview as preview_run

    return preview_run(run_config(photos, config, settings, **options), progress or _silent)


def export(
    run: TrainedRun | Place | None = None,
    *,
    out: Place,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
    **options: Unpack[ExportOptions],
) -> Bundle:
    """Write a bundle, the folder that `sar_infer.Classifier` opens, from a run, as ``sar-export`` does.

    The bundle is compared with torch and opened before it gets its name; one that fails a check is not written.

    ::

        from sar_infer import Classifier
        from sar_train import export, train

        bundle = export(train("photos/", out="runs/mine"), out="bundles/mine")
        print(Classifier(bundle).classify("new.jpg"))

    Args:
        run: What `train` returned, a run folder, or a CoOp checkpoint; None with ``handcrafted``.
        out: The bundle's folder.
        overwrite: Replace a bundle in ``out``.
        progress: Called with short lines during the work.
        **options: See `ExportOptions`; None means the default.

    Raises:
        ConfigError: options are unknown, or contradict each other or the run.
        RunError: there is no finished run, or its prompts cannot embed new names.
        BackboneError: the backbone cannot be loaded.
        ClassNameError: a class name does not fit.
        ExportError: the bundle failed a check or could not be written; the disk is as it was.
        InputError: ``out`` exists, or a photo or the class file cannot be read (an error of `sar_infer`).
    """
    from sar_infer.bundle.writing import check_target

    tell, target = progress or _silent, Path(out)
    run_path = run.path if isinstance(run, TrainedRun) else None if run is None else Path(run)
    check_export(run_path, options)
    check_target(target, overwrite=overwrite)
    photos = _sample_photos(options.get("photos"))

    from sar_infer.bundle.bundle import open_bundle
    from sar_train.export.bundle import export_bundle

    export_bundle(
        _source(run_path, options, tell),
        target,
        command=options.get("command") or f"sar_train.export({str(run_path or '')!r}, out={str(out)!r})",
        photos=photos,
        overwrite=overwrite,
        tell=tell,
    )
    return open_bundle(target)


def run_config(
    photos: Place,
    config: Place | Mapping[str, Any] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> RunConfig:
    """Build the settings of a run from a TOML file or its content, options, and settings by section; later ones win.

    Where neither SAR nor a setting of it is asked for, it is off for a method that it does not suit
    (`PromptMethod.sar_weight`).

    Raises:
        ConfigError: the file cannot be read, or settings cannot be used; all problems are in the message.
    """
    from sar_train.config.run import RunConfig, build, merge, read_toml
    from sar_train.errors import ConfigError
    from sar_train.methods.base import method_kind
    from sar_train.regularisers.base import regularisers

    sections: dict[str, dict[str, Any]] = {}
    if (weight := options.pop("sar_weight", None)) is not None:
        sections["sar"] = {"weight": weight}
    if (on := options.pop("on", None)) is not None:
        sections["dept"] = {"on": on}
    chosen = {name: _plain(value) for name, value in options.items() if value is not None}
    file = (config or {}) if config is None or isinstance(config, Mapping) else read_toml(Path(config))
    merged = merge(file, {"data": str(photos)}, chosen, {"sections": settings or {}}, {"sections": sections})
    resolved = build(RunConfig, merged, "settings" if file is config or config is None else str(config))
    if not resolved.sar and (weight is not None or (settings or {}).keys() & regularisers.entries):
        raise ConfigError(
            "--no-sar (sar = false) cannot be combined with settings of SAR or of another regulariser; leave out "
            "--set sar.…"
        )
    if not resolved.statistics and chosen.get("prompt", "auto") != "auto":
        raise ConfigError("--prompt: only the class model uses it, and it is off; leave it out")
    if resolved.device == "auto":
        import torch

        resolved = replace(resolved, device="cuda" if torch.cuda.is_available() else "cpu")
    regularised = "sar" in merged or bool(resolved.sections.keys() & regularisers.entries)
    final = resolved if regularised or method_kind(resolved.method).sar_weight != 0 else replace(resolved, sar=False)
    if not final.sar and chosen.keys() & {"novel", "novel_count"} and chosen.get("novel") != "none":
        raise ConfigError(
            "novel, novel-count: only SAR uses auxiliary names, and it is off; leave them out, or set --sar"
        )
    return final


def default_name(config: RunConfig) -> str:
    """Return the folder name of a run: ``caltech101-coop-sar-s1``, ``shop-coop-sar-s1`` for ``shop/train``."""
    from sar_train.data.readers.folder import domain_name
    from sar_train.training.identity import regulariser_of

    data_path = Path(config.data)
    data = domain_name(data_path).replace("/", "-") if data_path.is_dir() else data_path.stem
    on = config.sections.get(config.method, {}).get("on")
    name = f"{config.method}-{on}" if on else config.method
    words = [data or "photos", name, *([regulariser_of(config.sections)] if config.sar else []), f"s{config.seed}"]
    return "-".join(words)


def check_export(run: Path | None, options: Mapping[str, Any]) -> None:
    """Check that there is a run or a template, and that the options fit it, before anything heavy is loaded.

    Raises:
        ConfigError: options that do not exist or contradict each other.
    """
    from sar_infer.bundle.manifest import MANIFEST
    from sar_train.clip import TIMM
    from sar_train.errors import ConfigError

    if unknown := sorted(set(options) - set(ExportOptions.__annotations__)):
        raise ConfigError(f"unknown option {unknown[0]!r}, expected one of {', '.join(ExportOptions.__annotations__)}")
    template = options.get("handcrafted")
    if str(options.get("backbone") or "").startswith(TIMM):
        if run is not None or template is not None or options.get("classes") or options.get("tokenizer"):
            raise ConfigError(
                f"{options['backbone']} has no text tower, so its bundle knows classes by photos only: leave RUN, "
                "--handcrafted, --classes and --tokenizer out"
            )
        return
    if (run is None) == (template is None):
        raise ConfigError("expected a RUN folder, or --handcrafted TEMPLATE in its place")
    if run is not None and (run / MANIFEST).is_file():
        raise ConfigError(f"{run}: a bundle, not a run; sar-bundle works on it (shrink, freeze, verify)")
    for name in ("approximate", "text"):
        if template is not None and options.get(name) not in (None, "prompt"):
            raise ConfigError(f"--handcrafted is exported as it is; leave --{name} out")


def _source(run: Path | None, options: ExportOptions, tell: ProgressCallback) -> ExportSource:
    from sar_train.export.source import from_run, from_template

    phrases = _phrases(options.get("classes"), tell)
    pretrained, tokenizer = _plain(options.get("pretrained")), options.get("tokenizer")
    file = Path(tokenizer) if tokenizer else None
    if run is None:
        backbone = options.get("backbone") or "sar-mini"
        return from_template(options.get("handcrafted") or "", phrases, backbone, pretrained, file)
    return from_run(
        run,
        phrases,
        backbone=options.get("backbone"),
        pretrained=pretrained,
        tokenizer=file,
        approximate=options.get("approximate"),
        text=options.get("text") or "prompt",
        tell=tell,
    )


def _phrases(classes: Place | Classes | None, tell: ProgressCallback) -> Mapping[str, Sequence[str]]:
    """Return the phrases of each class of the bank, none for the classes of the run."""
    from sar_infer.text.names import phrases_by_name, read_class_file

    if not isinstance(classes, str | Path):
        return phrases_by_name(classes)
    file = read_class_file(Path(classes))
    for warning in file.warnings:
        tell(f"Warning: {warning}")
    return file.classes


def _sample_photos(folder: Place | None) -> list[Path]:
    """Return at most `MOST_PHOTOS` images of a folder, at even steps, each of which can be read.

    Raises:
        InputError: the folder holds no image, or one of them cannot be read.
    """
    from sar_infer.errors import ImageError
    from sar_infer.images.inputs import expand
    from sar_infer.images.load import load_rgb

    image_paths = [] if folder is None else [Path(path) for path in expand([str(folder)])]
    chosen = image_paths[:: -(-len(image_paths) // MOST_PHOTOS) or 1]
    for path in chosen:
        try:
            load_rgb(path)
        except ImageError as error:
            raise ImageError(f"{path}: {error}", error.kind) from None
    return chosen


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _silent(line: str) -> None:
    """Show nothing."""
