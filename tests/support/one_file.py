"""Banks of every form that a class can be ranked by, on the tiny bundle, and generated images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image
from support.trained import unit_rows_of

from sar_infer import Classifier
from sar_infer.bank import (
    BankCalibration,
    ClassBank,
    Learned,
    add,
    calibrate,
    fit,
    learn,
    set_class,
    set_unknown_threshold,
)
from sar_infer.class_model.model import ClassModel

Image8 = npt.NDArray[np.uint8]


def soft(width: int, height: int, *, grey: bool = False) -> Image8:
    """A generated image without hard edges."""
    noise = np.random.default_rng(width * 7919 + height).integers(
        0, 256, (height // 7 + 2, width // 7 + 2, 3), np.uint8
    )
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image.convert("L").convert("RGB") if grey else image)


def with_photos(classifier: Classifier) -> ClassBank:
    """Two classes by photos, one of them by nothing else."""
    sets = {"warm": classifier.embed_photos([soft(40 + n, 30) for n in range(4)])}
    sets["cool"] = classifier.embed_photos([255 - soft(40 + n, 30) for n in range(4)])
    sets["cool"] = dataclasses.replace(sets["cool"], photos_only=True)
    return add(classifier.bank, ["warm", "cool"], classifier.embed_names(["warm", "cool"]), sets)


def fitted(classifier: Classifier) -> ClassBank:
    bank = with_photos(classifier)
    return fit(bank, classifier.fit_model(bank).fitted.model.tensors())


def with_settings(classifier: Classifier) -> ClassBank:
    """A background class, and a class whose threshold is never reached."""
    bank = set_class(fitted(classifier), "green", background=True)
    return set_class(set_class(bank, "blue", background=True), "warm", threshold=1.0)


def adapted(classifier: Classifier) -> ClassBank:
    translation = (unit_rows_of(1, 3)[0] / 8).astype(np.float32)
    bank = fitted(classifier)
    return learn(bank, Learned(translation, {bank.find("warm"): (2 * unit_rows_of(1, 4)[0], 2.5)}, 9, {"shift": 0.1}))


def calibrated(classifier: Classifier) -> ClassBank:
    bank = fitted(classifier)
    model = ClassModel.from_tensors(bank.fitted).digest
    return calibrate(
        bank,
        BankCalibration(
            bank.content_digest, model, (), temperature=2.0, unknown=0.4, least=(0.1, 0.2, 0.3), measured={"photos": 9}
        ),
    )


def own_names(classifier: Classifier) -> ClassBank:
    """Names of no bundle."""
    names = ("sky", "sea", "sand")
    return ClassBank.of(names, classifier.embed_names(names), classifier.bank.encoder_digest)


BANKS: dict[str, Callable[[Classifier], ClassBank]] = {
    "names": lambda classifier: classifier.bank,
    "own names": own_names,
    "a name more": lambda classifier: add(classifier.bank, ["sky"], classifier.embed_names(["sky"])),
    "photos": with_photos,
    "fitted": fitted,
    "settings": with_settings,
    "adapted": adapted,
    "calibrated": calibrated,
    "threshold": lambda classifier: set_unknown_threshold(calibrated(classifier), 0.0),
}
