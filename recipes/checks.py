"""Measures of `sar-mini` on unseen nouns and on images, and of `sar-mini-vit` beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip import IMAGENET_CLASSNAMES
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy

from recipes.targets import Curriculum, imagenet_synsets
from recipes.text_tower import TEMPLATE
from sar_infer.images.preprocess import normalise, to_input
from sar_train.clip import backbone, mini
from sar_train.clip.backbone import Backbone
from sar_train.clip.mini import storage
from sar_train.data.dataset import DataOptions
from sar_train.data.feature_file import DEMO_FILE, load_features
from sar_train.data.opening import open_dataset
from sar_train.evaluation.relations import spearman
from sar_train.novel_names import wordnet


def on_held_out_nouns(model: Backbone, curriculum: Curriculum) -> dict[str, Any]:
    """Measure the embeddings of nouns that the training never saw.

    Their mean cosine to their targets, and Spearman's rank correlation between WordNet path similarity and embedding
    cosine, among themselves and towards ImageNet's classes; the targets' own correlation is what could be reached.
    """
    nouns = model.embed_names([names[0] for names in curriculum.held_out.names], TEMPLATE)
    classes = model.embed_names(IMAGENET_CLASSNAMES, TEMPLATE)
    synsets, imagenet = curriculum.held_out_synsets, imagenet_synsets()
    upper = np.triu_indices(len(synsets), 1)
    among, across = _path(synsets, synsets)[upper], _path(synsets, imagenet).ravel()
    targets, rows = curriculum.held_out.rows, curriculum.imagenet.rows
    return {
        "held_out_nouns": len(synsets),
        "mean_cosine_to_target": float((nouns * curriculum.held_out.rows).sum(1).mean()),
        "spearman_among_held_out": spearman(among, (nouns @ nouns.T).numpy()[upper]),
        "spearman_among_held_out_of_targets": spearman(among, (targets @ targets.T).numpy()[upper]),
        "spearman_to_imagenet": spearman(across, (nouns @ classes.T).numpy().ravel()),
        "spearman_to_imagenet_of_targets": spearman(across, (targets @ rows.T).numpy().ravel()),
    }


def on_photos(model: Backbone, class_rows: Tensor, photos: Sequence[Path]) -> dict[str, Any]:
    """Measure the accuracy on one image per ImageNet class.

    Top-1 in percent from names and from the class rows (the ceiling), and the logit scale that these photos call for.
    """
    images = torch.cat([_encode(model, photos[i : i + 50]) for i in range(0, len(photos), 50)])
    labels = torch.arange(len(photos))
    names = model.embed_names(IMAGENET_CLASSNAMES, TEMPLATE)
    return {
        "photos": len(photos),
        "top1_from_names": 100 * float((images @ names.T).argmax(1).eq(labels).double().mean()),
        "top1_of_class_rows": 100 * float((images @ class_rows.T).argmax(1).eq(labels).double().mean()),
        "best_logit_scale_on_photos": best_logit_scale(images, labels, names),
    }


def on_photos_of_vit(root: Path, weights: Path) -> dict[str, Any]:
    """Compare `sar-mini-vit` with its teacher on the same pixels.

    The mean cosine of their image embeddings and the top-1 of each in percent, on Caltech101's test photos, which the
    distillation left out, and on one photo per ImageNet class, where it did not.

    Args:
        root: holds ``caltech-101/`` in CoOp's layout and ``imagenet_sample/``.
        weights: what the student has learned.
    """
    teacher = backbone.load(mini.NAME)
    student = backbone.load(mini.VIT_NAME, backbone.RANDOM)
    storage.load_vit(student.model, mini.WEIGHTS, weights)
    caltech = open_dataset("caltech101", DataOptions(root))
    paths, labels = zip(*((caltech.root / path, label) for path, label in caltech.photos("test")), strict=True)
    imagenet = sorted((root / "imagenet_sample").glob("*.jpg"))
    return {
        "caltech101_test": _beside(student, teacher, paths, labels, caltech.class_names),
        "imagenet_sample_trained_on": _beside(
            student, teacher, imagenet, list(range(len(imagenet))), IMAGENET_CLASSNAMES
        ),
    }


def _beside(
    student: Backbone, teacher: Backbone, photos: Sequence[Path], labels: Sequence[int], class_names: Sequence[str]
) -> dict[str, Any]:
    names = teacher.embed_names(class_names, TEMPLATE)
    ours, theirs = (
        torch.cat([_encode(m, photos[i : i + 8]) for i in range(0, len(photos), 8)]) for m in (student, teacher)
    )
    top1 = [100 * float((rows @ names.T).argmax(1).eq(torch.tensor(labels)).double().mean()) for rows in (ours, theirs)]
    return {
        "photos": len(photos),
        "mean_cosine_to_teacher": float((ours * theirs).sum(1).mean()),
        "top1_student": top1[0],
        "top1_teacher": top1[1],
    }


def on_demo(model: Backbone) -> dict[str, Any]:
    """Find the best logit scale for the shipped features: base classes of Caltech101, validation images."""
    features = load_features(DEMO_FILE)
    class_names, labels = features.dataset.class_names, features.labels("val")
    base = range((len(class_names) + 1) // 2)
    rows = labels < len(base)
    names = model.embed_names([class_names[label] for label in base], TEMPLATE)
    best = best_logit_scale(features.plain("val")[rows], labels[rows], names)
    return {"logit_scale": model.logit_scale, "best_logit_scale_on_demo": best}


def best_logit_scale(images: Tensor, labels: Tensor, names: Tensor) -> int:
    """Return the integer multiplier of the cosine that makes (N,) labels likeliest; (N, D) images, (C, D) names."""
    cosines = images @ names.T
    return min(range(5, 101), key=lambda scale: float(cross_entropy(scale * cosines, labels)))


def _path(first: Sequence[int], second: Sequence[int]) -> np.ndarray:
    taxonomy = wordnet.load()
    return np.array([[taxonomy.path_similarity(a, b) for b in second] for a in first])


def _encode(model: Backbone, photos: Sequence[Path]) -> Tensor:
    pixels = [to_input(normalise(Image.open(photo), model.preprocess.fill), model.preprocess) for photo in photos]
    return model.encode_images(torch.from_numpy(np.stack(pixels)))
