"""The report: one self-contained HTML page, and its tables and figures as files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader

from sar_train.errors import ConfigError
from sar_train.report import charts, heatmap, scatter, summary
from sar_train.report.results import SAR, ResultSet
from sar_train.report.style import Figure
from sar_train.report.table import FORMATS, Table, to_html
from sar_train.report.tables import all_tables

MARK = '<meta name="generator" content="sar-experiment report">'
"""Marks a page as a report."""
SECTIONS = {
    "base-to-new": (
        "Base to new",
        "Prompts learn from photos of the base classes and are evaluated on base and on new classes, each among its "
        "own names. A method generalises where new stays at the zero-shot row or above it.",
    ),
    "open": (
        "One ranking over base and new",
        "What users of a classifier meet: every image is ranked among base and new classes together. A prompt that has "
        "learned its base classes too well gives them the photos of new ones.",
    ),
    "similarity": (
        "Similarities among class names",
        "SAR's aim: names that are similar under the hand-crafted prompt should stay similar. The more a learned map "
        "looks like the first one, the better these relations were kept.",
    ),
    "published": (
        "Beside published figures",
        "Read each row against zero-shot under the same backbone, not across backbones.",
    ),
    "few-shot": (
        "Few-shot learning",
        "All classes are learned and evaluated. A curve should rise with shots and lie above the zero-shot line.",
    ),
    "cross-dataset": (
        "Cross-dataset transfer",
        "One prompt, evaluated unchanged on other datasets: compare the averages with zero-shot.",
    ),
    "domain-generalisation": (
        "Domain generalisation",
        "The same classes in other kinds of images: compare with zero-shot.",
    ),
    "custom": ("Sweeps", "A row for each run; columns of settings show how rows differ."),
    "curves": (
        "Learning curves",
        "Loss terms by epoch. A term still falling at the end would fall further; a rising one gives way to another.",
    ),
    "costs": ("Cost", "What SAR adds to a run; a ratio of 1 means no extra time."),
    "novel": (
        "Novel names",
        "Names without photos that SAR keeps in place. Overlap with evaluated names would make results look better.",
    ),
    "set-up": (
        "Set-up checks",
        "A zero-shot accuracy below the known one means a mistake in template, names or pre-processing.",
    ),
}
"""Title of each section, and how to read it, by identifier."""


@dataclass(frozen=True)
class Part:
    """A section of the page."""

    key: str
    title: str
    how: str
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]

    @property
    def alone(self) -> tuple[Table, ...]:
        """Return the tables that belong to no figure."""
        taken = {figure.beside for figure in self.figures}
        return tuple(table for table in self.tables if table.key not in taken)

    def beside(self, figure: Figure) -> tuple[Table, ...]:
        """Return the table that belongs to a figure, if there is one."""
        return tuple(table for table in self.tables if table.key == figure.beside)


def check_target(out: Path) -> None:
    """Refuse to replace anything but an older report.

    Raises:
        ConfigError: there is something else at that path.
    """
    if out.exists() and not _is_report(out):
        raise ConfigError(f"{out}: exists and is not a report; choose another --out")


def _is_report(folder: Path) -> bool:
    """Say whether a folder is empty or holds only what `write` has written."""
    if not folder.is_dir():
        return False
    names, page = {path.name for path in folder.iterdir()}, folder / "index.html"
    if not names:
        return True
    return (
        names <= {"index.html", "tables", "figures"} and page.is_file() and MARK in page.read_text("utf-8", "replace")
    )


def write(
    results: ResultSet, out: Path, *, title: str, command: str, tell: Callable[[str], None] = lambda line: None
) -> Path:
    """Write ``index.html``, ``tables/`` and ``figures/``; an older report is replaced once the new one is complete.

    Args:
        results: as `sar_train.report.results.read` returns them.
        out: the new folder.
        title: the page's title.
        command: repeats the report; shown at its foot.
        tell: called with lines of progress.

    Returns:
        The page's path.
    """
    tables = all_tables(results)
    figures = []
    for name, maker in (("base against new", scatter), ("heat maps", heatmap), ("curves", charts)):
        tell(f"drawing {name}")
        figures += maker.figures(results)
    tell("writing the page")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        new = Path(folder) / "new"
        _fill(new, page(results, tables, figures, title=title, command=command), tables, figures)
        old = Path(folder) / "old"
        with suppress(FileNotFoundError):
            out.replace(old)
        new.replace(out)
    return out / "index.html"


def _fill(folder: Path, text: str, tables: Iterable[Table], figures: Iterable[Figure]) -> None:
    for name in ("tables", "figures"):
        (folder / name).mkdir(parents=True)
    (folder / "index.html").write_text(text, encoding="utf-8")
    for table in tables:
        for ending, form in FORMATS.items():
            (folder / "tables" / f"{table.key}.{ending}").write_text(form(table), encoding="utf-8")
    for figure in figures:
        (folder / "figures" / f"{figure.key}.png").write_bytes(figure.png)


def page(results: ResultSet, tables: Iterable[Table], figures: Iterable[Figure], *, title: str, command: str) -> str:
    """Return the page's HTML."""
    tables, figures = list(tables), list(figures)
    parts = [
        Part(
            key, name, how, tuple(f for f in figures if f.section == key), tuple(t for t in tables if t.section == key)
        )
        for key, (name, how) in SECTIONS.items()
    ]
    environment = Environment(
        loader=PackageLoader("sar_train.report", ""), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2").render(
        mark=MARK,
        title=title,
        parts=[part for part in parts if part.figures or part.tables],
        run=summary.what_was_run(results),
        claims=summary.claims(results),
        warnings=summary.warnings(results),
        provenance=provenance(results),
        command=command,
        to_html=to_html,
    )


def provenance(results: ResultSet) -> list[tuple[str, str]]:
    """Return what the figures are based on, as names and values."""
    runs = results.runs
    versions: dict[str, set[str]] = {}
    for run in runs:
        for package, version in (run["versions"] or {}).items():
            versions.setdefault(package, set()).add(str(version))
    weights = sorted({f"{run.backbone}: {run['backbone'].get('weights_digest') or 'unknown'}" for run in runs})
    codes = sorted({f"{(run['code'] or {}).get('version', '?')} ({run.code})" for run in runs})
    with_sar = sum(SAR in run.name or bool(run["config"].get("sar")) for run in runs)
    return [
        ("runs", f"{len(runs):,}, {with_sar:,} of them with SAR"),
        ("code", ", ".join(codes)),
        ("weights (SHA-256)", "; ".join(weights)),
        (
            "versions",
            ", ".join(f"{package} {' / '.join(sorted(found))}" for package, found in sorted(versions.items())),
        ),
    ]
