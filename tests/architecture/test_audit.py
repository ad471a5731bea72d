"""``make audit`` says what a vulnerability database knows, and never that all is well where none was asked."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from scripts import audit

ROOT = Path(__file__).resolve().parents[2]
FINE = {"name": "fine", "version": "1.0", "vulns": []}
HOLED = {
    "name": "holed",
    "version": "0.9",
    "vulns": [
        {"id": "PYSEC-1", "fix_versions": ["1.0"], "aliases": [], "description": ""},
        {"id": "PYSEC-2", "fix_versions": [], "aliases": [], "description": ""},
    ],
}
EXPOSED = ("serve", "bulk", "cuda", "hub", "train")
"""Extras whose packages parse what strangers send."""
UNKNOWN = {"name": "own", "skip_reason": "Dependency not found on PyPI and could not be audited: own (1.0)"}


def install(home: Path, by_service: dict[str, Any]) -> None:
    """Make a pip-audit that prints these packages for a service; a text is printed as it is."""
    folder = home / "bin"
    folder.mkdir()
    for service, packages in by_service.items():
        output = packages if isinstance(packages, str) else json.dumps({"dependencies": packages, "fixes": []})
        (folder / service).write_text(output, encoding="utf-8")
    client = folder / "pip-audit"
    client.write_text(f'#!/bin/sh\nfor service; do :; done\ncat "{folder}/$service"\n')
    client.chmod(0o700)


@pytest.mark.skipif(sys.platform == "win32", reason="the client is a shell script")
@pytest.mark.parametrize(
    ("by_service", "code", "printed"),
    [
        ({"pypi": [FINE]}, 0, "1 packages audited, 0 known vulnerabilities\n"),
        (
            {"pypi": [FINE, HOLED, UNKNOWN]},
            1,
            "holed 0.9: PYSEC-1 (mended in 1.0)\nholed 0.9: PYSEC-2 (not mended yet)\n"
            "2 packages audited, 2 known vulnerabilities; not in the database: own\n",
        ),
        ({"pypi": "", "osv": [HOLED]}, 1, "1 packages audited, 2 known vulnerabilities\n"),
        ({"pypi": [UNKNOWN], "osv": "Traceback"}, 2, audit.NOT_AUDITED + "\n"),
    ],
)
def test_verdicts(
    by_service: dict[str, Any],
    code: int,
    printed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install(tmp_path, by_service)
    monkeypatch.setattr(audit, "HOME", tmp_path)
    assert audit.main() == code
    assert "".join(capsys.readouterr()).endswith(printed)


def test_without_the_client_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "install", lambda: None)
    assert audit.main() == 2
    assert capsys.readouterr().err == audit.NOT_AUDITED + "\n"


def test_what_parses_what_strangers_send_has_an_upper_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in EXPOSED for line in extras[extra])]
    unbounded = [line for line in lines if not any(bound.operator == "<" for bound in Requirement(line).specifier)]
    assert unbounded == []
