"""Photograph ``/ui`` while it learns a class from two photos: ``python scripts/ui_screenshots.py [BUNDLE [FOLDER]]``.

BUNDLE (default ``runs/demo/bundle``, which ``make demo`` makes) is served with a new bank file; FOLDER (default
``runs/ui``) takes ``ui.webp``, the screenshot of README (``docs/assets/ui.webp``), and ``ui-phone.webp``, dark and
narrow. Needs Chromium on the PATH. Fails if the page complains in the browser's console.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, expect, sync_playwright

CLOTHES = Path("examples/clothes")
SHOWN = [CLOTHES / "test" / name / "00.jpg" for name in ("shoes", "hat", "trousers", "dress")]
KEY = "a key for the screenshots"
WIDE: dict[str, Any] = {"viewport": {"width": 1280, "height": 830}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "is_mobile": True, "has_touch": True,
    "device_scale_factor": 2,
}  # fmt: skip


def main() -> None:
    """Serve, take each screenshot, and write it."""
    bundle, folder = (Path(path) for path in [*sys.argv[1:], *("runs/demo/bundle", "runs/ui")[len(sys.argv) - 1 :]])
    program = shutil.which("chromium")
    if program is None or not (bundle / "manifest.json").is_file():
        sys.exit("needs chromium on the PATH" if program is None else f"no bundle in {bundle}; make demo makes one")
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for name, settings in {"ui": WIDE, "ui-phone": PHONE}.items():
            with serving(bundle) as url:
                image = screenshot(browser, url, settings)
            path = folder / f"{name}.webp"
            Image.open(io.BytesIO(image)).save(path, quality=86, method=6)
            print(f"{path}, {path.stat().st_size / 1000:.0f} kB")


@contextlib.contextmanager
def serving(bundle: Path) -> Iterator[str]:
    """Run ``sar-serve`` with a new bank file until the block ends, and yield its address."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--bundle", str(bundle), "--bank", f"{folder}/shop.safetensors", "--port", "0", "--no-access-log"]
        command = [sys.executable, "-m", "sar_infer.cli.serve", *options]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "SAR_API_KEY": KEY})
        try:
            matches = (re.search(r"Serving .* on (http://\S+)", line) for line in process.stderr or ())
            url = next((match[1] for match in matches if match), None)
            if url is None:
                sys.exit(f"sar-serve ended with code {process.wait()}")
            yield url
        finally:
            process.terminate()
            process.wait()


def screenshot(browser: Browser, url: str, settings: dict[str, Any]) -> bytes:
    """Classify photos, add a class by its name, give it two photos, and return the page as PNG."""
    page = browser.new_page(**settings)
    complaints: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    page.on("console", listen)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{url}/ui")
    page.fill("#key", KEY)
    page.press("#key", "Enter")
    page.set_input_files("#files", SHOWN)
    page.fill("#name", "shoes")
    page.press("#name", "Enter")
    expect(page.locator("#among")).to_contain_text("of 7 classes")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Add photos to the class shoes").click()
    chooser.value.set_files([CLOTHES / "added" / "shoes" / name for name in ("00.jpg", "01.jpg")])
    expect(page.locator("#effect")).to_contain_text("it is shoes")
    expect(page.locator("#strip span", has_text="…")).to_have_count(0)
    page.evaluate("document.activeElement.blur()")
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": settings["viewport"]["width"], "height": height})
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(500)  # until the bars have moved
    image = page.screenshot()
    page.close()
    if complaints:
        sys.exit("\n".join(complaints))
    return image


if __name__ == "__main__":
    main()
