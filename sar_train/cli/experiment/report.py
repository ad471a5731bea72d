"""``sar-experiment report`` and ``sar-experiment table``: results as a page and as tables."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from sar_train.cli.common import guarded, option

EPILOG = """\b
Examples:
  sar-experiment report results/                     results/report/index.html, with tables and figures beside it
  sar-experiment report results/ --out page --open
  sar-experiment table results/ --only base-to-new
  sar-experiment table results/ --format latex > tables.tex
"""


@click.command("report", epilog=EPILOG)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@option(
    "--out", type=click.Path(path_type=Path), help="Folder of the report, replaced if it is one.  [default: DIR/report]"
)
@option("--title", help="Title of the page.  [default: Results of DIR]")
@option("--open/--no-open", "show", default=False, show_default=True, help="Open it in the browser.")
@option("--quiet", "-q", is_flag=True, help="No progress.")
@guarded
def report(folder: Path, out: Path | None, title: str | None, *, show: bool, quiet: bool) -> None:
    """Write the results in DIR as one HTML page, with its tables (CSV, LaTeX, Markdown) and figures (PNG).

    DIR is searched for result files to any depth; other JSON files are skipped with a warning. The page needs nothing
    beside it and asks nothing of the network.
    """
    from sar_train.report.page import check_target, write
    from sar_train.report.results import read

    out = out or folder / "report"
    check_target(out)
    results = read(folder, tell=_warn, apart=out)

    def tell(line: str) -> None:
        if not quiet:
            click.echo(line, err=True)

    tell(f"{len(results.runs)} results")
    name = folder.resolve().name
    command = shlex.join(["sar-experiment", "report", name])
    page = write(results, out, title=title or f"Results of {name}", command=command, tell=tell)
    click.echo(page)
    if show:
        click.launch(page.resolve().as_uri())


@click.command("table", epilog=EPILOG)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@option(
    "--format",
    "form",
    type=click.Choice(["markdown", "csv", "latex", "json"]),
    default="markdown",
    show_default=True,
    help="LaTeX needs the package booktabs.",
)
@option("--only", default="", metavar="TEXT", help="Only tables whose name or title contains this text.")
@guarded
def table(folder: Path, form: str, only: str) -> None:
    """Print the tables of the results in DIR."""
    from sar_train.errors import DataError
    from sar_train.report.results import read
    from sar_train.report.table import to_csv, to_json, to_latex, to_markdown
    from sar_train.report.tables import all_tables

    every = all_tables(read(folder, tell=_warn))
    found = [one for one in every if only.casefold() in f"{one.key} {one.title}".casefold()]
    if not found:
        raise DataError(f"no table contains {only!r}; there are {', '.join(one.key for one in every)}")
    if form == "json":
        click.echo(to_json(found), nl=False)
        return
    render_one = {"markdown": to_markdown, "csv": to_csv, "latex": to_latex}[form]
    comment = {"markdown": "", "csv": "# {}\n", "latex": ""}[form]
    click.echo("\n".join(comment.format(one.title) + render_one(one) for one in found), nl=False)


def _warn(line: str) -> None:
    click.echo(" ".join(line.split()), err=True)
