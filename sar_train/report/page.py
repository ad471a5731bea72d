"""The report: one self-contained HTML page, and its tables and figures as files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from jinja2 import Environment, PackageLoader

from sar_train.errors import ConfigError
from sar_train.report import charts, heatmap, summary
from sar_train.report.figure import Figure
from sar_train.report.results import ResultSet
from sar_train.report.table import FORMATS, Table
from sar_train.report.tables import all_tables
from sar_train.report.wording import SAR

MARK = '<meta name="generator" content="sar-experiment report">'
"""Marks a page as a report."""
DRAWN: dict[str, Callable[[ResultSet], Iterable[Figure]]] = {
    "base against new": charts.base_against_new,
    "heat maps": heatmap.figures,
    "curves": charts.curves,
}
"""Makers of figures, by how they are called while they draw."""


def check_target(out: Path) -> None:
    """Refuse to replace anything but an older report.

    Raises:
        ConfigError: there is something else at that path.
    """
    names, page = {path.name for path in out.iterdir()} if out.is_dir() else {""}, out / "index.html"
    ours = names <= {"index.html", "tables", "figures"} and page.is_file()
    if out.exists() and names and not (ours and MARK in page.read_text("utf-8", "replace")):
        raise ConfigError(f"{out}: exists and is not a report; choose another --out")


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
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        new, old = Path(folder) / "new", Path(folder) / "old"
        for name in ("tables", "figures"):
            (new / name).mkdir(parents=True)
        tables = all_tables(results)
        for table in tables:
            for ending, form in FORMATS.items():
                (new / "tables" / f"{table.key}.{ending}").write_text(form(table), encoding="utf-8")
        figures: dict[Figure, str] = {}
        for name, maker in DRAWN.items():
            tell(f"drawing {name}")
            for figure in maker(results):
                figures[figure], png = figure.draw()
                (new / "figures" / f"{figure.key}.png").write_bytes(png)
        tell("writing the page")
        (new / "index.html").write_text(html(results, tables, figures, title=title, command=command), encoding="utf-8")
        with suppress(FileNotFoundError):
            out.replace(old)
        new.replace(out)
    return out / "index.html"


def html(
    results: ResultSet, tables: Sequence[Table], figures: Mapping[Figure, str], *, title: str, command: str
) -> str:
    """Return the page.

    Args:
        results: that tables and figures are of.
        tables: in their order.
        figures: the ``svg`` element of each.
        title: the page's title.
        command: repeats the report.
    """
    environment = Environment(
        loader=PackageLoader("sar_train.report", ""), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2").render(
        mark=MARK,
        title=title,
        tables=tables,
        figures=figures,
        run=summary.what_was_run(results),
        claims=summary.claims(results),
        warnings=summary.warnings(results),
        provenance=_provenance(results),
        command=command,
    )


def _provenance(results: ResultSet) -> list[tuple[str, str]]:
    """Return what the figures are based on, as names and values."""
    runs = results.runs
    versions: dict[str, set[str]] = {}
    for run in runs:
        for package, version in (run["versions"] or {}).items():
            versions.setdefault(package, set()).add(str(version))
    weights = sorted({f"{run.backbone}: {run['backbone'].get('weights_digest') or 'unknown'}" for run in runs})
    codes = sorted({f"{(run['code'] or {}).get('version', '?')} ({run.code})" for run in runs})
    with_sar = sum(SAR in run.name or bool(run["config"].get("sar")) for run in runs)
    packages = (f"{package} {' / '.join(sorted(numbers))}" for package, numbers in sorted(versions.items()))
    return [
        ("runs", f"{len(runs):,}, {with_sar:,} of them with SAR"),
        ("code", ", ".join(codes)),
        ("weights (SHA-256)", "; ".join(weights)),
        ("versions", ", ".join(packages)),
    ]
