"""The report: one self-contained HTML page, and its tables and figures as files."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from jinja2 import Environment, PackageLoader

from sar_train.errors import ConfigError
from sar_train.report.charts import figures
from sar_train.report.formats import to_csv, to_latex, to_markdown
from sar_train.report.published import SAR
from sar_train.report.results import ResultSet, shared_settings
from sar_train.report.tables import all_tables, incomparable, listed

MARK = '<meta name="generator" content="sar-experiment report">'
"""Marks a page as a report."""
FORMATS = {"csv": to_csv, "tex": to_latex, "md": to_markdown}


def check_target(out: Path) -> None:
    """Refuse to replace anything but an older report.

    Raises:
        ConfigError: there is something else at that path.
    """
    page, names = out / "index.html", {path.name for path in out.iterdir()} if out.is_dir() else {""}
    ours = names <= {"index.html", "tables", "figures"} and page.is_file()
    if out.exists() and names and not (ours and MARK in page.read_text("utf-8", "replace")):
        raise ConfigError(f"{out}: exists and is not a report; choose another --out")


def write(results: ResultSet, out: Path, *, title: str, command: str) -> Path:
    """Write ``index.html``, ``tables/`` and ``figures/``; an older report is replaced once the new one is complete.

    Args:
        results: as `sar_train.report.results.read` returns them.
        out: the new folder.
        title: the page's title.
        command: repeats the report; shown at its foot.

    Returns:
        The page's path.
    """
    tables, drawn = all_tables(results), {figure: figure.draw() for figure in figures(results)}
    wrong = sorted({run.dataset for run in results.runs if (run["zero_shot_check"] or {}).get("ok") is False})
    codes = sorted({f"{(run['code'] or {}).get('version', '?')} ({run.code})" for run in results.runs})
    warnings = [f"Zero-shot accuracy is below the known one on {listed(wrong)}: see the set-up checks first."] * any(
        wrong
    )
    warnings += incomparable(results.runs)
    warnings += [f"The runs were made by {len(codes)} states of the code."] * (len(codes) > 1)
    warnings += [f"Left out: {listed(results.left_out)}."] * any(results.left_out)
    with_sar = sum(SAR in run.name or bool(run["config"].get("sar")) for run in results.runs)
    weights = {f"{run.backbone}: {run['backbone'].get('weights_digest') or 'unknown'}" for run in results.runs}
    versions = {f"{name} {version}" for run in results.runs for name, version in (run["versions"] or {}).items()}
    provenance = {
        "runs": f"{len(results.runs):,}, {with_sar:,} of them with SAR",
        "code": ", ".join(codes),
        "weights (SHA-256)": "; ".join(sorted(weights)),
        "versions": ", ".join(sorted(versions)),
        "shared settings": ", ".join(f"{key}={value}" for key, value in shared_settings(results.runs).items()),
    }
    environment = Environment(
        loader=PackageLoader("sar_train.report", ""), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("page.html.j2").render(
        mark=MARK,
        title=title,
        tables=tables,
        figures={figure: svg for figure, (svg, _) in drawn.items()},
        warnings=warnings,
        provenance=provenance,
        command=command,
        example=results.runs[0].path.name,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        new = Path(folder) / "new"
        for name in ("tables", "figures"):
            (new / name).mkdir(parents=True)
        for table in tables:
            for ending, form in FORMATS.items():
                (new / "tables" / f"{table.key}.{ending}").write_text(form(table), encoding="utf-8")
        for figure, (_, png) in drawn.items():
            (new / "figures" / f"{figure.key}.png").write_bytes(png)
        (new / "index.html").write_text(page, encoding="utf-8")
        if out.exists():
            shutil.move(out, Path(folder) / "old")
        new.replace(out)
    return out / "index.html"
