"""``pins.txt`` names one version of all that the project may install; whatever make installs has it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
NOT_FOR_DEVELOPMENT = ("cuda",)
"""Extras that make never installs."""
EXPOSED = ("serve", "bulk", "cuda", "hub", "train")
"""Extras whose packages parse what the network sends."""
LINES = (ROOT / "pins.txt").read_text(encoding="utf-8").splitlines()
PINS = [Requirement(line) for line in LINES if not line.startswith("#")]
PYTHONS = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if c.startswith("Programming Language :: Python :: 3.")]
PLATFORMS = [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("win32", "AMD64")]


def requirements() -> list[Requirement]:
    """Return what the project, its extras, its tools and its build require, but not itself."""
    extras = PROJECT["optional-dependencies"]
    lines = [
        *PYPROJECT["build-system"]["requires"],
        *PROJECT["dependencies"],
        *(line for name, extra in extras.items() if name not in NOT_FOR_DEVELOPMENT for line in extra),
        *(line for group in PYPROJECT["dependency-groups"].values() for line in group),
    ]
    return [requirement for requirement in map(Requirement, lines) if requirement.name != PROJECT["name"]]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("system", "machine"), PLATFORMS)
def test_each_requirement_has_one_pin_within_its_bounds(python: str, system: str, machine: str) -> None:
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": system,
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }

    def applies(requirement: Requirement) -> bool:
        return requirement.marker is None or requirement.marker.evaluate(environment)

    pinned: dict[str, list[Version]] = {}
    for pin in filter(applies, PINS):
        (specifier,) = pin.specifier
        pinned.setdefault(canonicalize_name(pin.name), []).append(Version(specifier.version))
    assert [name for name, versions in pinned.items() if len(versions) > 1] == []
    missing = [
        str(requirement)
        for requirement in filter(applies, requirements())
        if not any(requirement.specifier.contains(v) for v in pinned.get(canonicalize_name(requirement.name), []))
    ]
    assert missing == []


def test_a_pin_is_a_name_and_a_version_that_every_index_has() -> None:
    assert [line for line in LINES if line.startswith("#")] == LINES[:2]
    assert LINES[1].split() == ["#", "make", "lock"]
    pin = re.compile(r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; [^/\\@+#:]+)?")
    assert [line for line in LINES[2:] if not pin.fullmatch(line)] == []


def test_what_parses_what_strangers_send_has_an_upper_bound() -> None:
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for extra in EXPOSED for line in extras[extra])]
    assert [line for line in lines if not any(bound.operator == "<" for bound in Requirement(line).specifier)] == []


def test_make_installs_nothing_without_pins() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipes = re.findall(r"^\t.*pip install.*", makefile, re.MULTILINE)
    assert len(recipes) == 4
    assert [recipe for recipe in recipes if not recipe.strip().lstrip("@").startswith("$(PINNED) ")] == []
