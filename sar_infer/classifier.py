"""The main object of the package: a bundle with its encoders, ready to classify."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats
from sar_infer.bank import BankCalibration, ClassBank, Learned, PhotoSet, edits
from sar_infer.bank.file import Tensors, decoded, encoded
from sar_infer.bank.file import read as read_bank
from sar_infer.bundle.bank_file import BankFile, check_place
from sar_infer.bundle.bundle import Bundle, Place, default_bundle, empty_bank, on_hub, open_bundle
from sar_infer.bundle.manifest import Manifest
from sar_infer.class_model.model import log_probabilities
from sar_infer.class_model.spool import FeatureSpool
from sar_infer.classify import ranking, suggesting
from sar_infer.classify.calibration import LEAST_IMAGES
from sar_infer.classify.calibration import calibrate as fit_scores
from sar_infer.classify.class_set import ClassSet, are_default, build_class_set
from sar_infer.classify.composer import Composer
from sar_infer.classify.decision import Decide, Decision, by_bank, can_call_unknown
from sar_infer.classify.fitting import BankFitting, enough, fit_advice, fit_bank
from sar_infer.classify.learning import LearningReport, learn_stream
from sar_infer.encoders.cache import EmbeddingCache, photo_cache, shared_cache
from sar_infer.encoders.embedder import Embedder
from sar_infer.encoders.encoders import finite
from sar_infer.encoders.engines import check_device
from sar_infer.encoders.precision import PrecisionChoice
from sar_infer.encoders.sessions import Device
from sar_infer.errors import BankError, BundleError, ClassNameError, ImageError, InputError
from sar_infer.evaluation.evaluation import RANKED, Evaluation, evaluate_photos
from sar_infer.evaluation.findings import FindingWarning, moved_photos, name_findings
from sar_infer.evaluation.labels import LabelCheck, check_new_photos, write_labels
from sar_infer.evaluation.reading import ReadPhotos, read_photos, unreadable
from sar_infer.evaluation.report import write_evaluation
from sar_infer.evaluation.several import SeveralEvaluation, evaluate_several
from sar_infer.images.labelled import Labelled, by_class, is_folder, unfolded
from sar_infer.images.load import ImageSource, source_name
from sar_infer.images.prefetch import decode_batches, decode_image, decode_photo, readable
from sar_infer.images.preprocess import CROPS, images_together
from sar_infer.images.sources import is_one, several
from sar_infer.profile import Profile
from sar_infer.results import PLAIN, DecisionOptions, ImageResult, Neighbour, Prediction
from sar_infer.text.names import Classes, Phrases, name_key, phrases_by_name

NO_EXAMPLES: Mapping[str, PhotoSet] = {}
ELSEWHERE = {
    **dict.fromkeys(["class_names", "id2label", "labels", "names"], "classes_"),
    **dict.fromkeys(["decision_function", "predict_log_proba"], "predict_proba(images)"),
    **dict.fromkeys(["embed", "get_image_features", "transform"], "encode(images)"),
    "add_class": "add(name, photos)",
    "export": "the command sar-bundle onnx",
    "from_folder": "from_examples(folder)",
    "from_hub": 'open("hf://USER/NAME")',
    "kneighbors": "nearest(photo, k)",
    "load": 'open("shop.safetensors")',
    "push_to_hub": 'save("shop.safetensors"), and the command sar-bundle freeze for a folder to upload',
    "remove_class": "remove(name)",
    "rename_class": "rename(old, new)",
    "train": "fit(photos, labels); the command sar-train learns a prompt",
    "val": "evaluate(folder)",
}
"""Names of methods and attributes in other libraries, with the right call here, for an error message."""


class _Guessed(type):
    """Names the right call to whoever asks the class for one of another library."""

    def __getattr__(cls, name: str) -> Any:
        raise AttributeError(f"{name}: {cls.__name__} has {ELSEWHERE.get(name, 'no such attribute')}")


class Classifier(Embedder, metaclass=_Guessed):
    """Classifies images against a bank of class names and any further names; safe to share between threads.

    Sessions open when they are first needed and stay open. Names that the bank has are never encoded again, others
    once, as long as ``cache`` remembers them. If the bundle has a class model, or classes come with
    photos, they are part of every ranking.

    A pickle and a clone are snapshots: they have the classes as they are, and are detached from a bank file. A pickle
    stores the path and the digest of the bundle, whose sessions it opens again.

    Args:
        bundle: An open bundle, or what ``open`` takes.
        bank: Class names to choose from, or a bank file, whose changes are in the next ``class_set``; None takes the
            bundle's.
        device: ``auto``, ``cpu``, ``cuda``, ``openvino`` or another provider of onnxruntime; verified when a session
            opens.
        threads: Number of threads inside an operator; None leaves it to onnxruntime.
        spin: See ``sessions.open_session``.
        cache: Keeps embeddings of further names; by default there is one for the whole process.
        precision: ``fp32``, or smaller graphs that the bundle has: ``fp16``, ``int8``, or ``auto`` for those that suit
            the device; or ``bf16`` with ``openvino``, if the shipped photos get what they get in float32.

    Attributes:
        choice: The graphs that run.
        self_test: Checks that the image encoder computes what it did at export.

    Raises:
        BankError: the bank belongs to another encoder or has rows of another length.
        InputError: the bundle has nothing in this precision.
        DeviceError: nothing installed has such a device; or ``cuda`` is not available to ``auto`` precision, which
            opens a session at once if there is a GPU.
    """

    def __init__(
        self,
        bundle: Bundle | Place | None = None,
        *,
        bank: ClassBank | BankFile | Place | None = None,
        device: Device = "auto",
        threads: int | None = None,
        spin: bool = True,
        cache: EmbeddingCache = shared_cache,
        precision: PrecisionChoice = "fp32",
    ) -> None:
        if bank is None and isinstance(bundle, str | os.PathLike) and not on_hub(bundle) and Path(bundle).is_file():
            bundle, bank = None, bundle  # a bank file of the shipped bundle
        bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        manifest = bundle.manifest
        bank = BankFile(Path(bank), bundle, missing=False) if isinstance(bank, str | os.PathLike) else bank
        self._bank: ClassBank | BankFile = bundle.bank if bank is None else bank
        self._changing = threading.Lock()
        self._paths: dict[bytes, str] = {}  # of photos that taught, as far as they were read here
        self.label_check: LabelCheck | None = None
        self._options: dict[str, Any] = {"device": device, "threads": threads, "spin": spin, "precision": precision}
        _check_bank(self.bank, manifest)
        check_device(device)
        self._composer = Composer(bundle.trained, bundle.bank, manifest.logit_scale)
        super().__init__(bundle, device, threads, spin=spin, cache=cache, precision=precision)

    @classmethod
    def from_examples(
        cls, photos: Labelled, labels: Sequence[str] | None = None, *, skip_unreadable: bool = False, **options: Any
    ) -> Classifier:
        """Return a classifier of exactly the classes of some photos, in seconds and without training.

        ``save("shop.safetensors")`` stores them, for the commands, the server and ``open``.

        Args:
            photos: A folder with one folder for each class, photos by class, or photos, with ``labels``.
            labels: The class of each photo.
            skip_unreadable: Leave out photos that cannot be read.
            options: Those of ``open``.

        Raises:
            InputError: There are no labelled photos there.
            ImageError: A photo cannot be read; the message names it.
        """
        return cls.open(**options).fit(photos, labels, skip_unreadable=skip_unreadable)

    @classmethod
    def open(
        cls,
        path: Place | None = None,
        device: Device = "auto",
        bank: str | os.PathLike[str] | ClassBank | None = None,
        threads: int | None = None,
        precision: PrecisionChoice = "fp32",
    ) -> Classifier:
        """Open a bundle, by default the one that ships with the package, or a bank file.

        ``path`` is a bank file of the shipped bundle, a bundle's folder, or ``hf://USER/NAME@REVISION`` on a Hugging
        Face hub (extra ``hub``). ``bank`` is the bank file of another bundle. Changes are written to a bank file.

        Raises:
            BundleError: the bundle is missing, damaged or inconsistent, or its hub does not have it or cannot be
                reached; SchemaError if it needs a newer reader.
            BankError: the bank is damaged or of another encoder.
            DeviceError: ``device`` is not available.
            InputError: the bundle has nothing in this precision, or a place on a hub
                is not understood.
        """
        classifier = cls(path, bank=bank, device=device, threads=threads, precision=precision)
        if device not in ("auto", "cpu"):
            classifier.start()
        return classifier

    from_pretrained = open  # noqa: A003 - the method above

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the classes to a bank file, for ``open``, the commands and the server.

        The classifier's own bank file has its changes already and stays as it is.

        Args:
            path: The file.
            overwrite: Replace another bank file that is there.

        Raises:
            InputError: It cannot be a bank file, or its folder is missing.
            BankError: Another file is there, such as a photo, or a bank file without ``overwrite``.
            WriteError: Another process is changing the file.
            OSError: It cannot be written; the old file is still there.
        """
        check_place(Path(path))
        if Path(path).exists():
            read_bank(Path(path), detached=True)
            if isinstance(self._bank, BankFile) and self._bank.path.exists() and self._bank.path.samefile(path):
                return
        self.bank.save(Path(path), overwrite=overwrite)

    save_pretrained = save

    def __reduce__(self) -> tuple[Any, ...]:
        tensors: Tensors = {}
        content = encoded(self.bank, tensors)
        shipped = self.bundle.origin is None and self.bundle.path == default_bundle()
        location = None if shipped else self.bundle.origin or str(self.bundle.path.absolute())
        return _unpickled, (type(self), location, self.bundle.manifest.digest, content, tensors, self._options)

    def __repr__(self) -> str:
        bank, manifest = self.bank, self.bundle.manifest
        few = ", ".join(map(repr, bank.names[:3])) + ", …" * (len(bank.names) > 3)
        file = f", file {str(self._bank.path)!r}" if isinstance(self._bank, BankFile) else ""
        photos = sum(map(len, bank.photos.values()))
        encoder = f"{manifest.backbone} {manifest.encoder_digest[:8]}"
        return f"<Classifier: {len(bank.names):,} classes ({few}), {photos:,} photos, encoder {encoder}{file}>"

    def __getattr__(self, name: str) -> Any:
        if name not in ELSEWHERE:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        raise AttributeError(f"{name}: this classifier has {ELSEWHERE[name]}")

    @property
    def bank(self) -> ClassBank:
        """Return the class names to choose from; of a bank file, those that it has now.

        Raises:
            BankError: The file was replaced by one that cannot be used.
        """
        return self._bank.look() if isinstance(self._bank, BankFile) else self._bank

    def classify(  # noqa: PLR0913 - one for each option
        self,
        images: ImageSource | Iterable[ImageSource],
        classes: Classes | ClassSet | None = None,
        only: bool | None = None,
        top_k: int = 5,
        *,
        examples: Labelled | None = None,
        unknown: bool = False,
        threshold: float | None = None,
        explain: bool = False,
        coverage: float | None = None,
        several: bool = False,
        batch_size: int = 16,
    ) -> Any:
        """Classify images; one that cannot be read gets a result with ``error`` set and does not stop the others.

        Args:
            images: One image or several: paths, folders, encoded bytes, PIL images, uint8 arrays (H, W, 3).
            classes: Names, or phrases by name, averaged on the sphere. They replace the names that a bundle has by
                default, such as the shipped ones, and are added to the classes of a bank or of a trained bundle. A name
                that the bank has keeps the bank's embedding, unless it comes with phrases of its own. Or a result of
                ``class_set``, to use the same classes in many calls, or classes with photos.
            only: True chooses only from the names in ``classes``, False from the bank's too; ignored with a
                ``ClassSet``.
            top_k: Number of classes to return for each image, at most.
            examples: Choose from exactly the classes of these labelled photos, as ``fit`` takes them, and ``classes``.
            unknown: Give no class to an image that seems to be none of the classes.
            threshold: Probability of *unknown*, 0 to 1, above which it does, instead of the bank's own.
            explain: Give the reasons for the best class.
            coverage: Give the set of classes that contains the true one with this probability.
            several: Give each class that an image shows, or none (``labels``), at the cost of five encodings.
            batch_size: Number of images that run through the encoder together.

        Returns:
            One `ImageResult` for a file, bytes or an array; a list of one per image, in order, for a folder or several.

        Raises:
            ClassNameError: a name is empty or too long.
            InputError: there is no class to choose from, ``top_k`` or ``batch_size`` is below 1, or no class model was
                fitted that has what these options need.
        """
        options = DecisionOptions(unknown, threshold, coverage, explain, several=several)
        bank = None if examples is None else self.create(examples)
        chosen = classes if isinstance(classes, ClassSet) else self.class_set(classes, only, bank)
        results = list(self.stream(unfolded(images), chosen, top_k, batch_size, options=options))
        return results[0] if is_one(images) and not is_folder(images) else results

    def __call__(
        self,
        images: ImageSource | Iterable[ImageSource],
        classes: Classes | ClassSet | None = None,
        *,
        candidate_labels: Classes | None = None,
        **options: Any,
    ) -> Any:
        """Return what ``classify`` does; with ``candidate_labels`` the classes are exactly these."""
        if candidate_labels is not None:
            return self.classify(images, candidate_labels, only=True, **options)
        return self.classify(images, classes, **options)

    def create(
        self,
        photos: Labelled | None = None,
        labels: Sequence[str] | None = None,
        *,
        classes: Classes | None = None,
        skip_unreadable: bool = False,
    ) -> ClassBank:
        """Return a bank of exactly some classes, with the class model fitted where there are photos enough.

        ``label_check`` has the photos in doubt and the copies.

        Args:
            photos: Labelled photos, as ``fit`` takes them.
            labels: The class of each photo.
            classes: Further names, or phrases by name, also of classes with photos.
            skip_unreadable: Leave out photos that cannot be read.

        Raises:
            InputError: There are no labelled photos there.
            ImageError: A photo cannot be read; the message names it.
            ClassNameError: A name is empty or too long, or there is no class.
        """
        labelled = {} if photos is None else by_class(photos, labels)
        texts = {name_key(name): (name, of_class) for name, of_class in phrases_by_name(classes).items()}
        phrases = dict([texts.pop(name_key(name), (name, (name,))) for name in labelled]) | dict(texts.values())
        names = {name_key(name): name for name in phrases}
        pairs = [(names[name_key(name)], image) for name, images in labelled.items() for image in images]
        read = self.read_photos(pairs, skip_unreadable=skip_unreadable)
        bank, _ = self.make_bank(phrases, read.sets, by="Python")
        self.label_check = self._checked(read)
        return bank

    def make_bank(
        self, phrases: Phrases, photos: Mapping[str, PhotoSet], *, by: str
    ) -> tuple[ClassBank, BankFitting | None]:
        """Return a bank of exactly some classes, and the fitting of its class model if there are photos enough.

        Args:
            phrases: The texts to embed, by class name.
            photos: Photos, by these names.
            by: The author, for the history.

        Raises:
            ClassNameError: A name is empty or too long, or there is no class.
        """
        if not phrases:
            raise ClassNameError("a bank needs a class")
        bank = edits.add(empty_bank(self.bundle), phrases, self.class_rows(phrases, photos), photos, by=by)
        fitting = self.fit_model(bank) if enough(bank.photos) else None
        return (bank if fitting is None else edits.fit(bank, fitting.fitted.model.tensors(), by=by)), fitting

    def _checked(self, read: ReadPhotos) -> LabelCheck:
        return check_new_photos(empty_bank(self.bundle), self.bundle, read.sets, read.files, read.twice)

    def read_photos(
        self, pairs: Iterable[tuple[str, ImageSource]], *, photos_only: bool = False, skip_unreadable: bool = False
    ) -> ReadPhotos:
        """Return the photos of classes, as `sar_infer.evaluation.read_photos` does; ``nearest`` knows their paths."""
        dim, photos_only = self.bundle.manifest.embed_dim, photos_only or self.bundle.manifest.tokenizer is None
        read = read_photos(self._each_photo, pairs, dim, photos_only=photos_only, skip_unreadable=skip_unreadable)
        self._paths |= {digest: path for (_, digest), path in read.files.items()}
        return read

    def check_labels(
        self, photos: Labelled, labels: Sequence[str] | None = None, *, page: str | os.PathLike[str] | None = None
    ) -> LabelCheck:
        """Return which photos look like another class (``issues``), and which are in two classes (``twice``).

        Args:
            photos: Labelled photos, as ``fit`` takes them.
            labels: The class of each photo.
            page: Also write an HTML page there, on which each photo is kept, moved or dropped.

        Raises:
            InputError: There are no labelled photos there.
            ImageError: Photos cannot be read; the message names them.
            WriteError: The page cannot be written.
        """
        read = self.read_photos((name, image) for name, of in by_class(photos, labels).items() for image in of)
        check = self._checked(read)
        if page is not None:
            write_labels(Path(page), check, "Photos in doubt")
        return check

    @property
    def expected_accuracy(self) -> float | None:
        """Return the accuracy, 0..1, that cross-validation expects on other photos; None if it was not measured."""
        model = self._composer.fitted(self.bank)
        return None if model is None or not len(model.expected) else float(model.expected[-1, 1])

    def nearest(self, photo: ImageSource, k: int = 5) -> list[Neighbour]:
        """Return the ``k`` most similar of the photos that taught the bank, of those whose embeddings are stored.

        Raises:
            ImageError: The photo cannot be read.
        """
        stored = [(name, *item) for name, photos in self.bank.photos.items() for item in photos.recent.items()]
        if not stored:
            return []
        cosines = np.array([row for _, _, row in stored]) @ self.embed_images(photo)[0]
        best = [(*stored[number][:2], float(cosines[number])) for number in np.argsort(-cosines)[:k].tolist()]
        return [Neighbour(self._paths.get(digest, digest.hex()), name, cosine) for name, digest, cosine in best]

    def fit(
        self, photos: Labelled | None = None, labels: Sequence[str] | None = None, *, skip_unreadable: bool = False
    ) -> Classifier:
        """Choose from exactly the classes of some photos from now on; without photos, fit the bank's to its own.

        With photos a bank file stays as it is, of which a warning tells.

        Args:
            photos: A folder with one folder for each class, photos by class, or photos, with ``labels``.
            labels: The class of each photo.
            skip_unreadable: Leave out photos that cannot be read.

        Returns:
            This classifier. ``label_check`` has the photos in doubt and the copies, of which a warning tells too, and
            ``expected_accuracy`` what cross-validation expects.

        Raises:
            InputError: There are no labelled photos there; or, of a bank, too few.
            ImageError: Photos cannot be read; the message names all of them.
        """
        if photos is not None:
            file = self._bank.path if isinstance(self._bank, BankFile) else None
            self._bank = self.create(photos, labels, skip_unreadable=skip_unreadable)
            if file is not None:
                warnings.warn(f"fit leaves {file} as it is; save(path) stores the new classes", stacklevel=2)
            self._warn_of_labels()
            return self
        fitting = edits.ahead(self.bank, self.fit_model)
        return self._changed(lambda bank: edits.fit(bank, fitting(bank).fitted.model.tensors(), by="Python"))

    def _warn_of_labels(self) -> None:
        if self.label_check and (line := self.label_check.line(None)):
            warnings.warn(line, stacklevel=3)

    def predict(self, photos: ImageSource | Iterable[ImageSource]) -> npt.NDArray[np.str_]:
        """Return the most probable class (N,) of each photo, as scikit-learn's classifiers do.

        Raises:
            ImageError: Photos cannot be read; the message names them.
        """
        names, scores = self._scores(photos)
        return np.asarray(names[scores.argmax(axis=1)])

    def predict_proba(self, photos: ImageSource | Iterable[ImageSource]) -> npt.NDArray[np.float64]:
        """Return the score (N, C) of each class, in the order of ``classes_``; a background class has no column.

        Raises:
            ImageError: Photos cannot be read; the message names them.
        """
        return self._scores(photos)[1]

    def _scores(
        self, photos: ImageSource | Iterable[ImageSource]
    ) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.float64]]:
        """Return names (C,) as in ``classes_`` and scores (N, C), both of the bank as it is at the call."""
        bank = self.bank
        names, chosen = _answers(bank), self.class_set(bank=bank)
        scores = np.exp(log_probabilities(self.logits(self.embed_images(unfolded(photos)), chosen)))
        return names, scores[:, [chosen.names.index(name) for name in names]].astype(np.float64)

    def score(self, photos: Labelled, labels: Sequence[str] | None = None) -> float:
        """Return the share of photos whose most probable class is theirs; ``evaluate`` reports more.

        Raises:
            InputError: There is not one label for each photo, or no labelled photo.
            ImageError: Photos cannot be read; the message names them.
        """
        pairs = [(photo, name) for name, photos in by_class(photos, labels).items() for photo in photos]
        if not pairs:
            raise InputError("expected labelled photos, got none")
        return float(np.mean(self.predict([photo for photo, _ in pairs]) == np.array([name for _, name in pairs])))

    def partial_fit(self, photos: Labelled, labels: Sequence[str] | None = None) -> Classifier:
        """Add photos to their classes, new classes included; the first photos replace names that are a default.

        Raises:
            InputError: There are no labelled photos there.
            ImageError: A photo cannot be read; the message names it.
        """
        if are_default(self.bank, self._composer):
            first, took = self.create(photos, labels), []

            def replace(bank: ClassBank) -> ClassBank:  # asked under the lock: another thread may have been first
                took.append(are_default(bank, self._composer))
                return first if took[0] else bank

            self._changed(replace)
            if took[0]:
                self._warn_of_labels()
                return self
        for name, images in by_class(photos, labels, self.bank.lookup.get).items():
            self.add(name, images)
        return self

    @property
    def classes_(self) -> npt.NDArray[np.str_]:
        """Return the names (C,) of the classes that can be predicted, sorted as scikit-learn expects."""
        return _answers(self.bank)

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002 - scikit-learn's
        """Return the parameters for a search: none."""
        return {}

    def set_params(self, **parameters: Any) -> Classifier:
        """Return this classifier, which has no parameters to search.

        Raises:
            InputError: There is a parameter.
        """
        if parameters:
            raise InputError(f"{next(iter(parameters))}: a classifier has no parameters to search; name them to open")
        return self

    def __sklearn_clone__(self) -> Classifier:
        clone = object.__new__(type(self))  # with the same sessions
        vars(clone).update(vars(self), _bank=self.bank)
        return clone

    def __sklearn_is_fitted__(self) -> bool:
        return True  # classes by name need no photos

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        photos = InputTags(one_d_array=True, two_d_array=False, string=True)
        return Tags("classifier", TargetTags(required=False), classifier_tags=ClassifierTags(), input_tags=photos)

    def add(
        self,
        name: str,
        photos: ImageSource | Iterable[ImageSource] | None = None,
        *,
        phrases: Sequence[str] | None = None,
        photos_only: bool = False,
        threshold: float | None = None,
    ) -> Classifier:
        """Add a class to the bank, by its name, photos, or both; a bank file is changed on the disk.

        A class that is there, by name or alias, gets the photos. A photo that another class has moves. The class is
        embedded anew without photos or with ``phrases``. Findings about name and photos are
        `sar_infer.evaluation.FindingWarning`; if a filter makes errors of them, nothing is added. A last warning says
        that ``fit`` would help, when it would.

        Args:
            name: Its name.
            photos: Its photos, or a folder of them.
            phrases: Texts that are embedded instead of the name.
            photos_only: Use only its photos, since its name has no meaning.
            threshold: Lowest score, 0..1, at which it is predicted.

        Returns:
            This classifier.

        Raises:
            ClassNameError: The name is empty, too long, or an alias of another class.
            InputError: ``photos_only`` without photos.
            ImageError: A photo cannot be read; the message names it.
            WriteError: Another process is changing the bank file.
        """
        if photos_only and photos is None:
            raise InputError("photos_only: expected photos too")
        pairs = () if photos is None else ((name, photo) for photo in unfolded(photos))
        read = self.read_photos(pairs, photos_only=photos_only)
        sets = read.sets
        texts, bank = {name: None if phrases is None else tuple(phrases)}, self.bank
        to_embed = edits.texts_to_embed(bank, texts, sets)
        findings = [] if photos_only else name_findings(bank, self.bundle, to_embed)
        if sets:
            files = {(bank.lookup.spelling(name), digest): path for (_, digest), path in read.files.items()}
            named = {bank.lookup.spelling(name): sets[name]}
            findings += check_new_photos(bank, self.bundle, named, files).findings()
            findings += moved_photos(bank, named)
        for finding in findings:
            warnings.warn(FindingWarning(finding), stacklevel=2)
        settings = {} if threshold is None else {"threshold": threshold}
        put = edits.ahead(
            bank, lambda bank: edits.put_classes(bank, texts, sets, self.class_rows, settings, by="Python")
        )
        self._changed(put)
        if sets and (why := fit_advice(bank, self.bank)):
            warnings.warn(f"{why}: fit()", stacklevel=2)
        return self

    def remove(self, *names: str) -> Classifier:
        """Remove classes, by name or alias; a bank file is changed on the disk.

        Raises:
            ClassNameError: There is no such class.
        """
        return self._changed(lambda bank: edits.remove(bank, names, by="Python"))

    def rename(self, old: str, new: str) -> Classifier:
        """Rename a class, which keeps its embedding and photos; a bank file is changed on the disk.

        Raises:
            ClassNameError: There is no such class, or another one has the new name.
        """
        return self._changed(lambda bank: edits.rename(bank, old, new, by="Python"))

    def move(self, photos: ImageSource | Iterable[ImageSource], to: str) -> Classifier:
        """Move photos that the bank has from their classes to another one; a bank file is changed on the disk.

        Args:
            photos: Photos, or a folder of them.
            to: Name or alias of the class.

        Raises:
            ClassNameError: There is no such class.
            InputError: No class has one of the photos, or only a sum has its embedding.
            ImageError: A photo cannot be read; the message names it.
        """
        digests = {digest: path for path, digest, _ in self.each_photo(unfolded(photos))}
        return self._changed(lambda bank: edits.move_photos(bank, digests, to, by="Python"))

    def undo(self, steps: int = 1) -> Classifier:
        """Take back the latest changes, which ``bank.history`` lists; a bank file is changed on the disk.

        Raises:
            InputError: There are fewer changes to take back.
        """
        return self._changed(lambda bank: edits.rollback(bank, edits.steps_back(bank, steps), by="Python"))

    def _changed(self, edit: Callable[[ClassBank], ClassBank]) -> Classifier:
        if isinstance(self._bank, BankFile):
            with self._bank.changing() as (file, bank):
                if (after := edit(bank)) is not bank:
                    self._bank.save(file, after)
        else:
            with self._changing:
                self._bank = edit(self._bank)
        return self

    def encode(self, images: ImageSource | Iterable[ImageSource]) -> Floats:
        """Return the unit embedding (D,) of an image, or (N, D) of several, as ``embed_images`` does.

        Raises:
            ImageError: Images cannot be read; the message names all of them.
        """
        rows = self.embed_images(images)
        return cast("Floats", rows[0]) if is_one(images) else rows

    def class_set(
        self,
        classes: Classes | None = None,
        only: bool | None = None,
        bank: ClassBank | None = None,
        photos: Mapping[str, PhotoSet] = NO_EXAMPLES,
    ) -> ClassSet:
        """Return the classes to choose from, as in ``classify``, for any number of calls of ``stream`` or ``rank``.

        Args:
            classes: As in ``classify``: names, or phrases by name.
            only: As in ``classify``; classes with ``photos`` are chosen from too.
            bank: Replaces the classifier's bank, for one that changes while sessions stay open; it must belong to the
                same encoder.
            photos: Photos by class name, from ``embed_photos``: of further classes, or more for those that are there.
                One that the bank counts for the class already does not count again, unless ``classes`` has phrases
                for it: these replace the bank's class, photos and all.

        Raises:
            ClassNameError: a name is empty or too long.
            InputError: no class is left.
        """
        bank = self.bank if bank is None else bank
        return build_class_set(bank, phrases_by_name(classes), only, self.embed_phrases, self._composer, photos)

    def fit_model(self, bank: ClassBank | None = None) -> BankFitting:
        """Fit a class model to the photos of a bank whose embeddings are stored, in numpy.

        ``sar_infer.bank.fit(bank, fitting.fitted.model.tensors())`` returns the bank with it, which ranks by it.

        Args:
            bank: Replaces the classifier's bank.

        Raises:
            InputError: There are fewer than two classes with photos.
        """
        bundle = self.bundle
        return fit_bank(self.bank if bank is None else bank, bundle.bank, bundle.trained, bundle.manifest.logit_scale)

    def learn(self, photos: ImageSource | Iterable[ImageSource], *, all_known: bool = False) -> LearningReport:
        """Adapt the bank to photos that nobody labelled; a bank file is changed on the disk.

        Args:
            photos: A folder, or photos.
            all_known: Every photo is of one of the bank's classes.

        Raises:
            InputError: Neither the bank nor the bundle has a class model.
            ImageError: A photo cannot be read; the message names it.
        """
        pieces = (([name], row[np.newaxis]) for name, _, row in self.each_photo(unfolded(photos)))
        with FeatureSpool(self.bundle.manifest.embed_dim, pieces) as spool:
            adapted = edits.ahead(self.bank, lambda bank: self.adapt(spool, bank=bank, all_known=all_known))
            reports: list[LearningReport] = []

            def edit(bank: ClassBank) -> ClassBank:
                change, report = adapted(bank)
                reports.append(report)
                return edits.learn(bank, change, by="Python")

            self._changed(edit)
        return reports[0]

    def calibrate(self, photos: Labelled, labels: Sequence[str] | None = None) -> BankCalibration:
        """Calibrate the scores on labelled photos that the bank has not used; a bank file is changed on the disk.

        Returns:
            Temperature, thresholds and prediction sets, and what they measured (``measured``).

        Raises:
            InputError: There are too few photos.
            ImageError: Photos cannot be read; the message names them.
        """
        labelled = by_class(photos, labels, self.bank.lookup.get)
        read = self.read_photos((name, image) for name, of in labelled.items() for image in of)
        fitted = edits.ahead(self.bank, lambda bank: self.fit_calibration(bank, read.sets))
        self._changed(lambda bank: edits.calibrate(bank, fitted(bank), by="Python"))
        return self.bank.calibration  # type: ignore[return-value] # that has just been set

    def fit_calibration(
        self, bank: ClassBank, photos: Mapping[str, PhotoSet], false_alarms: float = 0.05
    ) -> BankCalibration:
        """Return the calibration of a bank on photos by class; those that it has learned from are left out.

        Args:
            bank: The bank.
            photos: Photos by class name; those of other names are photos of other things.
            false_alarms: Share of photos of the classes, 0..1, that may be called unknown.

        Raises:
            InputError: There are too few.
        """
        # as if there were no calibration yet, so that logits are not of an earlier one
        classes = self.class_set(bank=edits.calibrate(bank, None))
        learned = {digest for one in bank.photos.values() for digest in one.digests}
        of_classes, of_others, labels = [np.empty((0, bank.dim), np.float32)], [np.empty((0, bank.dim), np.float32)], []
        for name, one in photos.items():
            if (column := bank.lookup.get(name)) is None:
                of_others.append(one.without(learned).rows)
            else:
                of_classes.append(one.without(bank.entry(name).photos.digests).rows)
                labels += [column] * len(of_classes[-1])
        if len(labels) < LEAST_IMAGES:
            raise InputError(
                f"{len(labels)} photos that the bank has not used; calibration needs {LEAST_IMAGES} or more"
            )
        rows, others = np.concatenate(of_classes), np.concatenate(of_others)
        calibrated, measured = fit_scores(
            ranking.logits(rows, classes), np.array(labels, np.int64), ranking.logits(others, classes), false_alarms
        )
        now = self.class_set(bank=bank)
        decide = self.decide(now, 1, DecisionOptions(unknown=True)) if can_call_unknown(now) else None

        def called(images: Floats) -> float | None:
            if decide is None or not len(images):
                return None
            return float(np.mean([result.reason is not None for result in decide(images)]))

        before = {"called_unknown": called(rows), "others_found": called(others)}
        return BankCalibration(
            bank.content_digest,
            self._composer.digest(bank),
            tuple(sorted(bank.background_names)),
            **dataclasses.asdict(calibrated),
            measured=measured | {"false_alarms": false_alarms, "before": before},
        )

    def adapt(
        self,
        spool: FeatureSpool,
        *,
        bank: ClassBank | None = None,
        all_known: bool = False,
        progress: Callable[[int], object] | None = None,
    ) -> tuple[Learned, LearningReport]:
        """Learn from photos that nobody labelled; return the change for a bank's log, and the report.

        ``sar_infer.bank.learn(bank, change)`` returns the bank with it, which ranks by it.

        Args:
            spool: Their keys and unit rows.
            bank: Replaces the classifier's bank.
            all_known: Every photo is of one of the bank's classes.
            progress: Called with a number of embeddings whenever some have been processed.

        Raises:
            InputError: Neither the bank nor the bundle has a class model.
        """
        bank = self.bank if bank is None else bank
        model = self._composer.fitted(bank)
        if model is None:
            raise InputError("no class model to learn with: fit one first (sar-bank fit BANK_FILE)")
        classes, progress = self._composer.classes(bank), progress or (lambda rows: None)
        return learn_stream(bank, model, classes, spool, all_known=all_known, progress=progress)

    def stream(
        self,
        images: Iterable[ImageSource],
        classes: Classes | ClassSet | Mapping[str, ClassSet] | None = None,
        top_k: int = 5,
        batch_size: int = 16,
        profile: Profile | None = None,
        options: DecisionOptions = PLAIN,
        names: Iterable[str] | None = None,
    ) -> Iterator[ImageResult]:
        """Classify any number of images in constant memory, decoding the next batch while one is encoded.

        Args:
            images: Images, as in ``classify``.
            classes: As in ``classify``; or class sets by the name of a bank, which gives ``ImageResult.banks``.
            top_k: Number of classes to return for each image, at most.
            batch_size: Number of images, or with ``options.several`` of crops, that run through the encoder together.
            profile: Counts the time of the phases ``decode``, ``encode`` and ``score``.
            options: Output in addition to the classes.
            names: The names of the results, one per image; by default the path, or ``image[i]`` for anything else.

        Returns:
            One result per image, in order.

        Raises:
            InputError: ``top_k`` or ``batch_size`` is below 1, or this bundle or these classes do not have what
                ``options`` ask for; raised at once, before the first image.
        """
        if min(top_k, batch_size) < 1:
            raise InputError(f"expected top_k and batch_size of 1 or more, got {top_k} and {batch_size}")
        decide: Decide
        banks = (
            {k: one for k, one in classes.items() if isinstance(one, ClassSet)} if isinstance(classes, Mapping) else {}
        )
        if banks:
            decide = by_bank(banks, lambda one: self.decide(one, top_k, options))
        else:
            chosen = classes if isinstance(classes, ClassSet) else self.class_set(cast("Classes | None", classes))
            decide = self.decide(chosen, top_k, options)
        pictures, profile = several(images), profile or Profile()
        batch_size = images_together(batch_size, several=options.several)
        names_left = None if names is None else iter(names)
        decode = functools.partial(decode_image, spec=self.bundle.manifest.preprocess, several=options.several)

        def results() -> Iterator[ImageResult]:
            for batch in decode_batches(pictures, profile.phase("decode")(decode), batch_size):
                named = batch if names_left is None else [(next(names_left), item) for _, item in batch]
                with profile.phase("encode"):
                    rows = self.embed_inputs(readable(batch))
                with profile.phase("score"):
                    decided = decide(rows, [name for name, item in named if not isinstance(item, ImageError)])
                    done = [
                        ImageResult(name, error=str(item)) if isinstance(item, ImageError) else next(decided)
                        for name, item in named
                    ]
                yield from done

        return results()

    def decide(self, classes: ClassSet, top_k: int = 5, options: DecisionOptions = PLAIN) -> Decision:
        """Return the function that makes a result of each unit row (N, D), for any number of calls.

        Raises:
            InputError: ``top_k`` is below 1, or this bundle or these classes do not have what ``options`` ask for.
        """
        return Decision(classes, top_k, options)

    def rank(self, rows: Floats, classes: ClassSet, top_k: int) -> Iterator[tuple[Prediction, ...]]:
        """Return the best ``top_k`` classes for each of N unit rows (N, D), the best first."""
        return (result.predictions for result in self.decide(classes, top_k)(rows))

    def logits(self, rows: Floats, classes: ClassSet) -> Floats:
        """Return logits (N, C), columns in the order of the classes, for N unit rows (N, D); ``scores`` takes them."""
        return ranking.logits(rows, classes)[:, :-1]

    def scores(self, logits: Floats) -> Floats:
        """Return the scores (N, C) of ``logits``: their softmax."""
        return np.exp(log_probabilities(logits)).astype(np.float32)

    def suggest(self, rows: Floats, classes: ClassSet, keys: Sequence[str] | Sequence[int]) -> dict[str, Any]:
        """Return groups among photos that nobody labelled, and those worth a label; needs the extra ``suggest``.

        Args:
            rows: (N, D) unit rows, as from ``embed_images``.
            classes: From ``class_set``.
            keys: The name or number of each photo.

        Returns:
            What ``POST /v1/suggest`` does: photos by their keys, classes by their names.

        Raises:
            InputError: scipy is not installed.
        """
        return suggesting.suggest(rows, classes, keys)

    def embed_images(self, images: ImageSource | Iterable[ImageSource], batch_size: int = 16) -> Floats:
        """Return unit rows (N, D), one per image.

        Raises:
            ImageError: images cannot be read; the message names all of them.
            InputError: ``batch_size`` is below 1.
            BundleError: the graph is broken.
        """
        if batch_size < 1:
            raise InputError(f"expected batch_size of 1 or more, got {batch_size}")
        rows = [np.empty((0, self.bundle.manifest.embed_dim), dtype=np.float32)]
        bad = list[tuple[str, ImageError]]()
        decode = functools.partial(decode_image, spec=self.bundle.manifest.preprocess)
        for batch in decode_batches(several(images), decode, batch_size):
            bad += [(name, item) for name, item in batch if isinstance(item, ImageError)]
            if not bad:
                rows.append(finite(self.embed_inputs(readable(batch)), self.choice.image))
        if bad:
            raise unreadable(bad)
        return np.concatenate(rows)

    def embed_photos(self, images: ImageSource | Iterable[ImageSource], batch_size: int = 16) -> PhotoSet:
        """Return the photos of a class, for ``bank.add`` or ``class_set``: unit rows, and digests of their pixels.

        An image that has the same pixels as one before it is left out.

        Raises:
            ImageError: an image cannot be read; the message names it.
            InputError: ``batch_size`` is below 1.
            BundleError: the graph is broken.
        """
        embedded = [*self.each_photo(several(images), batch_size)]
        rows = np.array([row for _, _, row in embedded], np.float32).reshape(-1, self.bundle.manifest.embed_dim)
        photos_only = self.bundle.manifest.tokenizer is None
        return PhotoSet.of([digest for _, digest, _ in embedded], rows, photos_only=photos_only)

    def each_photo(
        self,
        images: Iterable[ImageSource],
        batch_size: int = 16,
        skipped: Callable[[str, ImageError], object] | None = None,
    ) -> Iterator[tuple[str, bytes, Floats]]:
        """Yield name, digest of the pixels and unit row (D,) of each image; as ``embed_photos``, which says more.

        With ``skipped``, it is called with name and error of each image that cannot be read, which is left out.
        """
        for name, digest, row in self._each_photo(images, batch_size):
            if not isinstance(row, ImageError):
                yield name, digest, row
            elif skipped is None:
                raise ImageError(f"{name}: {row}", row.kind)
            else:
                skipped(name, row)

    def evaluate(
        self,
        photos: Labelled,
        labels: Sequence[str] | None = None,
        *,
        classes: Classes | None = None,
        only: bool | None = None,
        bank: ClassBank | None = None,
        examples: Mapping[str, PhotoSet] = NO_EXAMPLES,
        watch: Callable[[int], object] = lambda count: None,
        page: str | os.PathLike[str] | None = None,
    ) -> Evaluation:
        """Evaluate the answers for labelled photos, and report confused pairs and photos that may be in a wrong class.

        Photos that the classes have learned from are left out, and so are those that cannot be read, or whose pixels
        came before. A label that is none of the classes counts as unknown. A bundle does not record which photos it was
        trained on, so leave these out yourself.

        Args:
            photos: A folder with one folder for each class, photos by class, or photos, with ``labels``.
            labels: The class of each photo.
            classes: As in ``classify``.
            only: As in ``classify``; classes with ``examples`` are chosen from too.
            bank: Replaces the classifier's bank, as in ``class_set``.
            examples: Further photos of classes, as ``class_set`` takes them.
            watch: Called with the number of photos done since the last call.
            page: Also write an HTML page there.

        Raises:
            ClassNameError: A name is empty or too long.
            WriteError: The page cannot be written.
            InputError: No photo is left that shows one of the classes.
        """
        bank = self.bank if bank is None else bank
        photos = by_class(photos, labels, bank.lookup.get)
        chosen = self.class_set(classes, only, bank, examples)
        evaluation = evaluate_photos(
            photos,
            chosen,
            bank,
            self._each_photo,
            self.decide(chosen, RANKED, DecisionOptions(can_call_unknown(chosen), guesses=True)),
            (digest for one in (*bank.photos.values(), *examples.values()) for digest in one.digest_set),
            watch,
        )
        if page is not None:
            write_evaluation(Path(page), evaluation, "Evaluation")
        return evaluation

    def evaluate_several(
        self,
        labels: Mapping[str, Sequence[str]],
        *,
        bank: ClassBank | None = None,
        watch: Callable[[int], object] = lambda count: None,
    ) -> SeveralEvaluation:
        """Evaluate the answers with ``several`` for photos that show several classes, one or none.

        Photos that the bank has learned from and unreadable ones are left out.

        Args:
            labels: The labels of each photo by path, perhaps none; one that is no class does not count.
            bank: Replaces the classifier's bank, as in ``class_set``.
            watch: Called with the number of photos done since the last call.

        Raises:
            InputError: No class model was fitted, or no photo is left that shows a class.
        """
        bank = self.bank if bank is None else bank
        chosen = self.class_set(bank=bank)
        return evaluate_several(
            labels,
            chosen,
            bank,
            functools.partial(self._each_photo, several=True),
            self.decide(chosen, len(chosen.names), DecisionOptions(several=True)),
            (digest for one in bank.photos.values() for digest in one.digest_set),
            watch,
        )

    def _each_photo(
        self, images: Iterable[ImageSource], batch_size: int = 16, *, several: bool = False
    ) -> Iterator[tuple[str, bytes, Floats | ImageError]]:
        """Yield what ``each_photo`` does, with ``several`` the rows of its crops (5, D), and an unreadable one's error.

        Files whose bytes were embedded before are not decoded again.
        """
        if batch_size < 1:
            raise InputError(f"expected batch_size of 1 or more, got {batch_size}")
        manifest = self.bundle.manifest
        by = (
            f"{manifest.files[self.choice.image].sha256} {manifest.preprocess}"
            + "/several" * several
            + "/bf16" * (self.choice.precision == "bf16")
        )
        together = images_together(batch_size, several=several)
        ahead: deque[tuple[str, str, tuple[bytes, Floats] | None]] = deque()

        def fresh() -> Iterator[ImageSource]:
            for number, image in enumerate(images):
                file = _file_digest(image)
                embedded = None if file is None else photo_cache.get((by, file))
                ahead.append((source_name(image, number), file or "", embedded))
                if embedded is None:
                    yield image

        decode = functools.partial(decode_photo, spec=manifest.preprocess, several=several)
        for batch in decode_batches(fresh(), decode, together):
            pixels = [image for image, _ in readable(batch)]
            embedded = finite(self.embed_inputs(pixels), self.choice.image)
            rows = iter(embedded.reshape(-1, len(CROPS), embedded.shape[1]) if several else embedded)
            for _, item in batch:
                while (waiting := ahead.popleft())[2] is not None:
                    yield waiting[0], *waiting[2]
                name, file, _ = waiting
                if isinstance(item, ImageError):
                    yield name, b"", item
                    continue
                digest, row = item[1], next(rows)
                if file:
                    photo_cache.put((by, file), (digest, row.copy()))
                yield name, digest, row
        yield from ((name, *embedded) for name, _, embedded in ahead if embedded is not None)


def _file_digest(image: ImageSource) -> str | None:
    """Return the SHA-256 of a file's bytes; None for anything else, or if it cannot be read."""
    if not isinstance(image, str | os.PathLike):
        return None
    try:
        with Path(image).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError):  # its decoding reports what is wrong
        return None


def _unpickled(
    kind: type[Classifier], location: Place | None, digest: str, content: Any, tensors: Tensors, options: dict[str, Any]
) -> Classifier:
    bundle = open_bundle(location)
    if bundle.manifest.digest != digest:
        raise BundleError(f"{bundle.location}: was replaced since the pickle was made; open it, and fit again")
    return kind(bundle, bank=decoded(content, tensors, bundle.bank), **options)


def _answers(bank: ClassBank) -> npt.NDArray[np.str_]:
    """Return the names (C,) of the classes that can be an answer, sorted."""
    return np.array(sorted({*bank.names} - bank.background_names), np.str_)


def _check_bank(bank: ClassBank, manifest: Manifest) -> None:
    if bank.encoder_digest != manifest.encoder_digest:
        raise BankError(
            f"bank of another encoder: open the bundle that it was made with (expected "
            f"{manifest.encoder_digest[:8]}, the bank has {bank.encoder_digest[:8]})"
        )
    if bank.dim != manifest.embed_dim:
        raise BankError(f"bank with rows of {bank.dim}, expected {manifest.embed_dim}")
