"""``sar-experiment report``, ``table`` and ``pack``: results as a page, as tables, and as one file."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from sar_infer.errors import one_line
from sar_train.cli.common import guarded, option

EPILOG = """\b
Examples:
  sar-experiment report results/     writes results/report/index.html
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
@option(
    "--open/--no-open",
    "show",
    envvar="SAR_EXPERIMENT_REPORT_OPEN",
    default=False,
    show_default=True,
    help="Open it in the browser.",
)
@option("--quiet", "-q", is_flag=True, help="Show no progress.")
@guarded
def report(folder: Path, out: Path | None, title: str | None, *, show: bool, quiet: bool) -> None:
    """Write the results in DIR as one HTML page, with its tables (CSV, LaTeX, Markdown) and figures (PNG).

    DIR is searched for results, loose and packed, to any depth; other JSON files are skipped with a warning. The page
    needs nothing beside it and loads nothing from the network.
    """
    from sar_train.report.page import check_target, write
    from sar_train.report.results import read

    out = out or folder / "report"
    check_target(out)
    results = read(folder, tell=_warn, apart=out)

    def tell(line: str) -> None:
        if not quiet:
            click.echo(one_line(line), err=True)

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
    envvar="SAR_EXPERIMENT_TABLE_FORMAT",
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
    tables = [one for one in every if only.casefold() in f"{one.key} {one.title}".casefold()]
    if not tables:
        raise DataError(f"no table contains {only!r}; there are {', '.join(one.key for one in every)}")
    if form == "json":
        click.echo(to_json(tables), nl=False)
        return
    render_one = {"markdown": to_markdown, "csv": to_csv, "latex": to_latex}[form]
    comment = {"markdown": "", "csv": "# {}\n", "latex": ""}[form]
    click.echo("\n".join(comment.format(one.title) + render_one(one) for one in tables), nl=False)


@click.command("pack")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@guarded
def pack(folder: Path) -> None:
    """Pack the finished runs below DIR, an experiment's folder, into DIR/results.jsonl.xz, and delete their own files.

    A line of it is one run: the whole result with its settings, key and digest of the code, and the TOML file that
    repeats it. The same results give the same bytes. `table`, `report` and sweeps into DIR read packed and loose
    results alike, and a loose one wins over a packed one of the same name; a sweep goes on writing a file for each run,
    and pack takes these in when it is called again. `xz -dc DIR/results.jsonl.xz` prints the lines.
    """
    from sar_train.report import packed

    runs, added = packed.pack(folder, _warn)
    archive = folder / packed.ARCHIVE
    click.echo(f"{archive}: {runs:,} runs, {added:,} of them added now, {archive.stat().st_size / 1e3:,.0f} kB")


def _warn(line: str) -> None:
    click.echo(one_line(" ".join(line.split())), err=True)
