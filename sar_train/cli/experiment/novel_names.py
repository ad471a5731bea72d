"""``sar-experiment novel-names``: list the names that SAR would regularise, or the request for them to a chat model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sar_infer.errors import one_line
from sar_train.cli.common import guarded, option

if TYPE_CHECKING:
    from sar_train.novel_names import NovelNames

EPILOG = """\b
Examples:
  sar-experiment novel-names demo --source wordnet:2 --count 20
  sar-experiment novel-names photos/ --source dataset:imagenet --out names.txt
  sar-experiment novel-names photos/ --source llm --llm-model NAME \\
                             --llm-url http://localhost:11434/v1
  sar-experiment novel-names photos/ --show-request
      paste it into any chat, save the answer in FILE, then
  sar-train photos/ --novel answer:FILE
"""
SOURCES = (
    "wordnet (relatives), wordnet:D or wordnet:A-B (so many steps away), words (random nouns), dataset:NAME, llm, "
    "answer:FILE (a chat's answer), none, or a file"
)


@click.command("novel-names", epilog=EPILOG)
@click.argument("photos")
@option("--source", default="wordnet", show_default=True, help=SOURCES)
@option("--count", type=click.IntRange(1), default=400, show_default=True, help="How many names at most.")
@option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Seed of random draws.")
@option(
    "--exclude-eval-names/--keep-eval-names",
    default=True,
    show_default=True,
    help="Leave the evaluated new names out.",
)
@option(
    "--data-root",
    type=click.Path(path_type=Path),
    help="Folder that holds datasets by name, in CoOp's layout.",
)
@option(
    "--protocol",
    type=click.Choice(["auto", "base-to-new", "all", "pseudo"]),
    default="auto",
    show_default=True,
    help="Which classes are trained and which are new, as for sar-train.",
)
@option("--template", help="Hand-crafted template with {}, for the request.  [default: the dataset's]")
@option("--llm-url", help="Base URL of an OpenAI-compatible endpoint.")
@option("--llm-model", help="Model to ask there; key in SAR_LLM_KEY.")
@option(
    "--cache-dir",
    type=click.Path(path_type=Path),
    default=Path("runs/.features"),
    show_default=True,
    help="Where a model's answers are kept, as for sar-train with --out in runs/.",
)
@option("--show-request", is_flag=True, help="Print the request to a language model, and exit.")
@option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the names here, for --novel FILE.")
@option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@guarded
def novel_names(photos: str, **options: Any) -> None:
    """List novel names for the classes of PHOTOS, which is whatever sar-train takes; photos themselves are not needed.

    Names go to standard output, one per line, as --novel FILE reads them; counts and the overlap with the names of the
    evaluated new classes to standard error.
    """
    from sar_train import novel_names as novel
    from sar_train.data.class_names import read_classes
    from sar_train.data.protocol import plan
    from sar_train.novel_names.chat_model import request_text

    data = read_classes(photos, options["data_root"], options["cache_dir"])
    chosen = plan(options["protocol"], data.class_names, published_split=data.published_split)
    base, new = ([data.class_names[label] for label in labels] for labels in (chosen.base, chosen.new))
    template = options["template"] or data.template
    if options["show_request"]:
        request = novel.NameRequest(base, options["count"], options["seed"], template)
        click.echo(request_text(request, at_once=options["count"]), nl=False)
        return
    source_options = novel.SourceOptions(*(options[key] for key in ("data_root", "cache_dir", "llm_url", "llm_model")))
    names = novel.novel_names(
        novel.open_novel_source(options["source"], source_options),
        base,
        new=new,
        count=options["count"],
        seed=options["seed"],
        exclude=options["exclude_eval_names"],
        template=template,
    )
    counts = _counts(names, excluded=options["exclude_eval_names"])
    for line in (
        *(f"Warning: {text}" for text in names.warnings),
        f"{data.name}: {len(base)} trained classes, {counts}",
    ):
        click.echo(one_line(line), err=True)
    if options["out"]:
        _write(names, options["out"], f"{data.name}, seed {options['seed']}: {counts}")
    if options["form"] == "json":
        about = {"dataset": data.name, "protocol": chosen.protocol, "base": base, "new": new}
        click.echo(json.dumps(about | names.summary | {"names": names.names}, ensure_ascii=False))
    elif not options["out"]:
        click.echo("".join(f"{name}\n" for name in names.names), nl=False)


def _counts(names: NovelNames, *, excluded: bool) -> str:
    from sar_train.novel_names.gather import overlap_told

    source = f"{names.source} ({names.model})" if names.model else names.source
    return f"{len(names.names)} novel names from {source}{overlap_told(names.overlap, excluded=excluded)}"


def _write(names: NovelNames, path: Path, about: str) -> None:
    """Write one name a line, after a comment that says where they are from."""
    from sar_train.data.files import write_atomic

    write_atomic(path, "".join(f"{line}\n" for line in (f"# {about}", *names.names)).encode())
