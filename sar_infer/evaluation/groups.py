"""Groups of photos without labels: their page, their list and their lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sar_infer.evaluation.html import write_page
from sar_infer.images.thumbnail import file_of, picture_of

SHOWN_OF_A_GROUP = 12
"""Photos of a group that the page shows and that its name is given to: the most typical ones."""
_MOST_LINES = 20


def write_groups(path: Path, content: Mapping[str, Any], names: Sequence[str], title: str, command: str) -> None:
    """Write the page of the groups, on which they get names.

    Args:
        path: The HTML file.
        content: As `Classifier.described` returns it.
        names: Class names that the page completes.
        title: Its title.
        command: Command that adds the list that the page saves.

    Raises:
        WriteError: It cannot be written.
    """

    def photo(key: str) -> dict[str, Any]:
        return {"key": key, "path": file_of(key), "picture": picture_of(key)}

    groups = [{**group, "photos": [*map(photo, group["photos"][:SHOWN_OF_A_GROUP])]} for group in content["groups"]]
    labels = [{**label, "photo": photo(label["photo"])} for label in content["labels"]]
    write_page(
        path, "groups", title, {**content, "names": names, "command": command, "groups": groups, "labels": labels}
    )


def group_rows(content: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return rows of an empty class name, a photo file and its group: all groups, then the photos worth a label."""
    photos = [
        (key, str(n)) for n, group in enumerate(content["groups"], 1) for key in group["photos"][:SHOWN_OF_A_GROUP]
    ]
    photos += [(label["photo"], "worth a label") for label in content["labels"]]
    return [("", path, group) for key, group in photos if (path := file_of(key))]


def group_lines(content: Mapping[str, Any], width: int) -> Iterator[str]:
    """Yield the groups that look like no class, and the photos worth a label, as lines of text of this width."""
    new = [group for group in content["groups"] if group["like"] is None]
    of_new = f"{sum(group['size'] for group in new):,} of them look like none of the {content['classes']:,} classes"
    yield f"{content['photos']:,} photos; {of_new}, in {_counted(len(new), 'group')}"
    if new:
        yield from ("", "group  photos  nearest classes")
    for number, group in enumerate(new[:_MOST_LINES], start=1):
        nearest = ", ".join(f"{answer['label']} {answer['score']:.0%}" for answer in group["nearest"])
        yield f"{number:5}  {group['size']:6,}  {nearest}"[:width]
        yield f"{'':15}{', '.join(group['photos'][:2])}"
    if rest := new[_MOST_LINES:]:
        yield f"and {_counted(len(rest), 'group')} more"
    yield from ("", "worth a label first")
    for label in content["labels"][:5]:
        yield f"  {label['photo']}  {' or '.join(answer['label'] for answer in label['answers'])}?"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
