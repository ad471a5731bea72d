"""Record what a shop sees: ``docs/assets/shop.svg``, which moves, and screens of the pages, as SVG with JPEGs inside.

``python -m scripts.screens`` runs the commands and a server on the photos of ``examples/clothes``. It takes the screens
with the program ``chromium``. What is shown was printed or drawn by this run.
"""

from __future__ import annotations

import base64
import contextlib
import html
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import skimage
from PIL import Image
from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "docs" / "assets"
CLOTHES = ROOT / "examples" / "clothes"
WIDTH, HEIGHT, BAR = 1000, 640, 44
SECONDS = 4.5
"""Of each scene."""
KEY = "a-key-of-this-recording"
RECORDING = (
    "A recording: sar-bank create makes a classifier of six garments, a page shows which ones are confused, two photos "
    "teach it the class shoes, and photos of other things are unknown"
)
PAGES = (
    ("page.html", "confusions", "#pairs-section", "Confused pairs, with the photos: jackets called shirts, and more"),
    ("page.html", "matrix", "section:has(#matrix-title)", "The matrix: a row for each class, a column for each answer"),
    ("page.html", "trade", "section:has(#trade-title)", "Known photos called unknown against other photos found"),
    ("page.html", "scores", "section:has(#scores-title)", "The accuracy of photos by their score"),
    ("mixed-labels.html", "labels", "", "Four photos in a wrong folder, each with typical photos of both classes"),
    ("shop-groups.html", "groups", "", "Groups of photos without labels, to be named"),
)
"""Page, picture, part of the page (all of it), and what the picture shows."""
FONT = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"


def command(line: str, folder: Path) -> list[str]:
    """Run a command as a reader types it; return it and what it printed, as lines."""
    program, *arguments = line.split()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments],
        check=False,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode and not done.stdout:
        raise SystemExit(f"{line}: {done.stderr}")
    return [f"$ {line}", *done.stdout.splitlines()]


@contextlib.contextmanager
def server(bank: Path) -> Iterator[str]:
    """Serve a bank on a free port until the block ends; yield the address."""
    program = [sys.executable, "-m", "sar_infer.cli.serve", "--port", "0", "--bank", str(bank)]
    process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True, env=os.environ | {"SAR_API_KEY": KEY})
    try:
        for line in process.stderr or ():
            if served := re.search(r"Serving .* on (http://\S+) ", line):
                yield served[1]
                break
    finally:
        process.terminate()
        process.wait()


def jpeg(image: Image.Image, quality: int = 72) -> str:
    """Return a picture as a data URI."""
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def shot(page: Any) -> Image.Image:
    """Return what the page shows."""
    return Image.open(io.BytesIO(page.screenshot()))


def picture(uri: str, x: float, y: float, width: float, height: float, mark: str = "") -> str:
    """Return the element that shows a picture."""
    return f'<image{mark} x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" href="{uri}"/>'


def text(lines: list[str], x: float, y: float) -> str:
    """Return lines of a terminal, folded at its width; what was typed is bright."""
    lines = [part for line in lines for part in textwrap.wrap(line, 100, subsequent_indent="  ") or [""]]
    rows = (
        f'<text class="{"typed" if line.startswith("$ ") else "printed"}" x="{x:g}" y="{y + 23 * row:g}" '
        f'xml:space="preserve">{html.escape(line)}</text>'
        for row, line in enumerate(lines)
    )
    return "".join(rows)


def photo(path: Path, x: float, y: float, side: float) -> str:
    """Return a photo as large as a square allows."""
    image = Image.open(path).convert("RGB")
    image.thumbnail((1.6 * side, 1.6 * side))
    scale = side / max(image.size)
    return picture(jpeg(image), x, y, image.width * scale, image.height * scale)


def photos(paths: list[Path], y: float, side: float = 136) -> str:
    """Return a line of photos with the names of their folders."""
    parts = []
    for column, path in enumerate(paths):
        x = 24 + column * (side + 25)
        parts.append(photo(path, x, y, side))
        parts.append(f'<text class="folder" x="{x}" y="{y + side + 20}">{path.parent.name}</text>')
    return "".join(parts)


def movie(scenes: list[tuple[str, str]], title: str) -> str:
    """Return an SVG that shows scenes, each with its caption, one after another and again; without motion the last."""
    total, share = SECONDS * len(scenes), 100 / len(scenes)
    shown, hidden = "{ opacity: 1 }", "{ opacity: 0 }"
    frames = f"@keyframes scene {{ 0%, {share - 1:.2f}% {shown} {share:.2f}%, 99% {hidden} 100% {shown} }}"
    delays = "".join(
        f".s{number} {{ animation-delay: {SECONDS * number - total * (number > 0):g}s }}"
        for number in range(len(scenes))
    )
    groups = "".join(
        f'<g class="scene s{number}"><text class="caption" x="24" y="29">{html.escape(caption)}</text>{body}</g>'
        for number, (caption, body) in enumerate(scenes)
    )
    style = (
        f".scene {{ opacity: 0; animation: scene {total:g}s infinite }} .scene:last-of-type {shown} {frames} {delays}"
        "@media (prefers-reduced-motion: reduce) { .scene { animation: none } }"
        ".screen { fill: #161b22 } .caption { fill: #fff; font-size: 19px; font-weight: 650 }"
        f".typed, .printed {{ font-family: {FONT}; font-size: 15px }} .typed {{ fill: #fff }}"
        ".printed, .folder { fill: #a9b4c0 }"
    )
    return svg(f'<rect class="screen" width="{WIDTH}" height="{HEIGHT}" rx="10"/>{groups}', style, title, WIDTH, HEIGHT)


def both(light: Image.Image, dark: Image.Image, title: str) -> str:
    """Return an SVG that shows a screen in the reader's colours."""
    width, height = light.size
    style = (
        ".dark { display: none } "
        "@media (prefers-color-scheme: dark) { .dark { display: inline } .light { display: none } }"
    )
    parts = [
        picture(jpeg(image), 0, 0, width, height, f' class="{mark}"')
        for mark, image in (("light", light), ("dark", dark))
    ]
    return svg("".join(parts), style, title, width, height)


def svg(body: str, style: str, title: str, width: int, height: int) -> str:
    """Return a whole SVG file."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="title" '
        f'font-family="{SANS}"><title id="title">{html.escape(title)}</title><style>{style}</style>{body}</svg>\n'
    )


def screens(browser: Any, path: Path, name: str, title: str, part: str = "") -> None:
    """Write the top of an HTML page, or a part of it, as an SVG in both colours."""
    images = list[Image.Image]()
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport={"width": 1100, "height": 860}, color_scheme=scheme)
        page = context.new_page()
        page.goto(path.as_uri())
        page.wait_for_load_state("networkidle")
        content = page.locator(part).screenshot() if part else page.screenshot()
        images.append(Image.open(io.BytesIO(content)))
        context.close()
    (ASSETS / f"{name}.svg").write_text(both(images[0], images[1], title), encoding="utf-8")


def mislabelled(folder: Path) -> Path:
    """Return a copy of the training photos, of which four lie in the folder of another class."""
    copy = folder / "mixed"
    shutil.copytree(CLOTHES / "train", copy)
    for source, target in (("hat/00", "dress"), ("dress/01", "trousers"), ("trousers/02", "hat"), ("hat/03", "jacket")):
        shutil.move(copy / f"{source}.jpg", copy / target / f"from-{source.replace('/', '-')}.jpg")
    return copy


def classified(page: Any, photo: Path) -> None:
    """Show a photo and wait for its ranking."""
    page.set_input_files("#files", photo)
    expect(page.locator("#ranking")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#bars li")).not_to_have_count(0)


def shop(browser: Any, folder: Path) -> list[tuple[str, str]]:
    """Return the scenes of a shop: its photos, its accuracy, a class by two photos, something else."""
    train, test = "photos", "others"
    (folder / train).symlink_to(CLOTHES / "train")
    (folder / test).symlink_to(CLOTHES / "test")
    made = command(f"sar-bank create shop.safetensors --photos {train}", folder)[:6]
    firsts = [sorted(path.iterdir())[1] for path in sorted((CLOTHES / "train").iterdir())]
    scenes = [("A folder of photos for each class: a classifier in seconds", photos(firsts, 76) + text(made, 24, 300))]
    measured = command(f"sar-bank evaluate shop.safetensors --photos {test} --html page.html", folder)
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT - BAR}, color_scheme="light")
    page = context.new_page()
    page.set_viewport_size({"width": 5 * WIDTH // 4, "height": 5 * (HEIGHT - BAR) // 4})
    page.goto((folder / "page.html").as_uri())
    page.wait_for_load_state("networkidle")
    place = (0, BAR, WIDTH, HEIGHT - BAR)
    accuracy = next(line.split()[1] for line in measured if line.startswith("accuracy"))
    scenes.append((f"Is it good enough? {accuracy} of 90 other photos are right", picture(jpeg(shot(page)), *place)))
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT - BAR})
    with server(folder / "shop.safetensors") as address:
        page.goto(f"{address}/ui")
        page.locator("#key").fill(KEY)
        page.locator("#key").press("Enter")
        expect(page.locator("#bank")).to_be_visible()
        classified(page, CLOTHES / "test" / "shoes" / "00.jpg")
        best = page.locator("#bars .name").first.inner_text()
        scenes.append(
            (f"Something new: there is no class for it, the best is {best}", picture(jpeg(shot(page)), *place))
        )
        page.fill("#name", "shoes")
        page.press("#name", "Enter")
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name=re.compile("Add photos to the class shoes")).first.click()
        chooser.value.set_files(sorted((CLOTHES / "added" / "shoes").iterdir())[:2])
        expect(page.locator("#taught")).to_contain_text("2 photos added")
        expect(page.locator("#ranking")).to_have_attribute("aria-busy", "false")
        page.evaluate("scrollTo(0, 0)")
        scenes.append(("Two photos teach it the class shoes, while it runs", picture(jpeg(shot(page)), *place)))
    context.close()
    fitted = command("sar-bank fit shop.safetensors", folder)[:2]
    others = [folder / name for name in ("coffee.png", "chelsea.png", "rocket.jpg")]
    for path in others:
        shutil.copy(Path(skimage.__file__).parent / "data" / path.name, path)
    line = f"sar-classify {' '.join(path.name for path in others)} --bank shop.safetensors --unknown --top-k 1"
    answers = command(line, folder)
    shown = "".join(photo(path, 24 + 250 * column, 76, 230) for column, path in enumerate(others))
    scenes.append(("Other things are unknown", shown + text([*fitted, "", *answers], 24, 300)))
    return scenes


def main() -> None:
    """Write all screens."""
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        folder = Path(scratch)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        (ASSETS / "shop.svg").write_text(movie(shop(browser, folder), RECORDING), encoding="utf-8")
        command(f"sar-bank create mixed.safetensors --photos {mislabelled(folder).name}", folder)
        command("sar-bank suggest shop.safetensors --photos others", folder)
        for file, name, part, title in PAGES:
            screens(browser, folder / file, name, title, part)
        browser.close()


if __name__ == "__main__":
    main()
