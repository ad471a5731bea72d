"""Answers of language models, kept as JSON files, so that a second run needs no network."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

from sar_train.data.files import write_atomic
from sar_train.novel_names.endpoint import TEMPERATURE, Answer

FOLDER = "novel-names"


class Answers:
    """A folder of answers, by model, seed and whole request."""

    def __init__(self, cache_dir: Path | None) -> None:
        """None keeps nothing."""
        self._folder = cache_dir / FOLDER if cache_dir else None

    def get(self, model: str, seed: int, request: str) -> Answer | None:
        """The kept answer to a request; None where there is none, or its file is damaged."""
        path = self._path(model, seed, request)
        if path is None:
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            text, reported = content["answer"], content["model"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return Answer(text, reported) if isinstance(text, str) and isinstance(reported, str) else None

    def put(self, model: str, seed: int, request: str, answer: Answer) -> None:
        """Keep an answer.

        Raises:
            DataError: it cannot be written.
        """
        path = self._path(model, seed, request)
        if path is None:
            return
        content = {
            "model": answer.model,
            "asked_for": model,
            "temperature": TEMPERATURE,
            "seed": seed,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "request": request,
            "answer": answer.text,
        }
        write_atomic(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())

    def _path(self, model: str, seed: int, request: str) -> Path | None:
        identity = json.dumps([model, TEMPERATURE, seed, request]).encode()
        return self._folder / f"{hashlib.sha256(identity).hexdigest()[:32]}.json" if self._folder else None
