"""What a run is measured by: its answers, a linear probe on the same shots, and the relations that it keeps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sar_train.data.photos import Split
from sar_train.data.source import FeatureSource, PhotoSource
from sar_train.evaluate import Judged
from sar_train.probe import linear_probe
from sar_train.prompted import Prompted
from sar_train.record import Parts
from sar_train.relations import held_out_names, spearman_of_relations
from sar_train.setting import Setting


def probe_accuracy(setting: Setting) -> float | None:
    """Accuracy in percent of a linear probe on the same shots, on the base classes; None where nothing is judged."""
    judged = setting.judge.base
    if judged is None:
        return None
    config, source, base = setting.config, setting.source, setting.plan.base
    labels = source.labels("val").tolist()
    drawn = source.draw(config.shots, config.seed).val
    rows = [row for row in drawn if labels[row] in base]
    val = source.plain("val", rows), torch.tensor([base.index(labels[row]) for row in rows], dtype=torch.long)
    shots = setting.problem.features, setting.problem.labels
    return linear_probe(*shots, judged.features, judged.labels, val=val, seed=config.seed)


def image_features(prompted: Prompted, source: FeatureSource | PhotoSource, split: Split, part: Judged) -> Tensor:
    """(N, D) unit features of judged photos, under image prompts where the method has them."""
    if "image" not in prompted.method.towers or not isinstance(source, PhotoSource):
        return part.features
    return source.map_pixels(split, part.rows, prompted.encode_images)[:, 0]


def answers(setting: Setting, prompted: Prompted) -> tuple[Parts, dict[str, Parts]]:
    """What the method answers, and what it would answer in the other ways that a bundle may need."""
    encoded: dict[int, Tensor] = {}

    def images(part: Judged) -> Tensor:
        if id(part) not in encoded:
            encoded[id(part)] = image_features(prompted, setting.source, setting.plan.split, part)
        return encoded[id(part)]

    result = setting.judge(lambda part: prompted.logits(images(part), part.names))
    others: dict[str, Parts] = {}
    if prompted.method.head() is not None:
        others["text-branch"] = setting.judge(lambda part: prompted.logits(images(part), part.names, text_only=True))
    if prompted.method.per_image:
        others["mean-image"] = setting.judge(lambda part: prompted.logits(images(part), part.names, frozen=True))
    return result, others


def held_out(setting: Setting) -> tuple[str, ...]:
    """Names that take no part in the run."""
    novel = setting.novel.names if setting.novel else ()
    new = setting.judge.new.names if setting.judge.new else ()
    return held_out_names([*setting.problem.class_names, *novel], new)


def relations(setting: Setting, prompted: Prompted, names: Sequence[str]) -> float | None:
    """SAR's own measure on some names; None where prompts hold for the trained classes alone."""
    if not prompted.method.transfers:
        return None
    return spearman_of_relations(prompted.embed(names), setting.handcrafted(names))
