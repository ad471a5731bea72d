"""Groups of photos without labels: their page, their list and their lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    groups = [
        {**group, "photos": [photo(key) for key in group["photos"][:SHOWN_OF_A_GROUP]]} for group in content["groups"]
    ]
    labels = [{**label, "photo": photo(label["photo"])} for label in content["labels"]]
    data = {**content, "names": names, "command": command, "groups": groups, "labels": labels}
    write_page(path, "groups", title, data)


def group_rows(content: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return rows of an empty class name, a photo file and its group: all groups, then the photos worth a label."""
    photos = [
        (path, str(number))
        for number, group in enumerate(content["groups"], start=1)
        for key in group["photos"][:SHOWN_OF_A_GROUP]
        if (path := file_of(key))
    ]
    photos += [(path, "worth a label") for label in content["labels"] if (path := file_of(label["photo"]))]
    return [("", path, group) for path, group in photos]


def group_lines(content: Mapping[str, Any], width: int) -> list[str]:
    """Return the groups that look like no class, and the photos worth a label, as lines of text of this width."""
    groups = content["groups"]
    new = [group for group in groups if group["like"] is None]
    count = sum(group["size"] for group in new)
    lines = [
        f"{content['photos']:,} photos; {count:,} of them look like none of the {content['classes']:,} classes, in "
        f"{_counted(len(new), 'group')}",
    ]
    if new:
        lines += ["", "group  photos  nearest classes"]
    for number, group in enumerate(new[:_MOST_LINES], start=1):
        nearest = ", ".join(f"{answer['label']} {answer['score']:.0%}" for answer in group["nearest"])
        lines += [f"{number:5}  {group['size']:6,}  {nearest}"[:width]]
        lines += [f"               {', '.join(group['photos'][:2])}"]
    if len(new) > _MOST_LINES:
        lines += [f"and {_counted(len(new) - _MOST_LINES, 'group')} more"]
    lines += ["", "worth a label first"]
    for label in content["labels"][:5]:
        lines += [f"  {label['photo']}  {' or '.join(answer['label'] for answer in label['answers'])}?"]
    return lines


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
