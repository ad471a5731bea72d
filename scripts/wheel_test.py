"""Build the wheel and use it the way a user does: alone, without torch, on every Python that it claims to support.

For each interpreter found: a fresh environment, the base install, then from an empty folder the three commands'
``--help``, ``sar-classify --version`` and one generated image classified with the bundle inside the wheel; then the
extra ``serve``, and the same image through ``sar-serve``. A claimed Python that is not on the machine is named as not
tested; none at all is a failure.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LARGEST_WHEEL = 80 * 2**20
DRAW = "from PIL import Image; Image.radial_gradient('L').convert('RGB').resize((320, 240)).save('image.png')"
ABSENT = "import importlib.util as u; print([m for m in ('torch', 'open_clip', 'onnx', 'timm') if u.find_spec(m)])"


def main() -> int:
    """Build, check the contents, then one environment per interpreter."""
    with tempfile.TemporaryDirectory(prefix="sar-wheel-") as scratch:
        wheel = build(Path(scratch, "dist"))
        check_contents(wheel)
        tested = []
        for version in claimed():
            python = interpreter(version)
            if python is None:
                print(f"Python {version}: not on this machine, not tested", flush=True)
                continue
            started = time.monotonic()
            use(wheel, python, Path(scratch, version))
            shutil.rmtree(Path(scratch, version))
            tested.append(version)
            print(f"Python {version}: base install works ({time.monotonic() - started:.0f} s)", flush=True)
    if not tested:
        print("no claimed Python found: nothing tested", file=sys.stderr)
    return 0 if tested else 1


def claimed() -> list[str]:
    """Return the Python versions in the project's classifiers."""
    prefix = "Programming Language :: Python :: 3."
    return [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if c.startswith(prefix)]


def interpreter(version: str) -> str | None:
    """Find an interpreter of this version on the PATH that can make environments."""
    candidate = shutil.which(f"python{version}")
    probe = f"import sys, venv, ensurepip; sys.exit('{version}' != '%d.%d' % sys.version_info[:2])"
    if candidate and subprocess.run([candidate, "-c", probe], capture_output=True, check=False).returncode == 0:
        return candidate
    return None


def build(folder: Path) -> Path:
    """Build the source archive and, from it, the wheel."""
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)], cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    print(f"built {wheel.name}, {wheel.stat().st_size / 2**20:.1f} MiB", flush=True)
    return wheel


def check_contents(wheel: Path) -> None:
    """Check that the wheel holds the two packages, the bundle and the licences, and nothing else.

    Raises:
        SystemExit: something is missing or does not belong there.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    extra = sorted(top for top in tops if top not in ("sar_infer", "sar_train") and not top.endswith(".dist-info"))
    expected = ["sar_infer/py.typed", "sar_infer/_bundles/mini/manifest.json"]
    expected += [
        str(path.relative_to(ROOT))
        for package in ("sar_infer", "sar_train")
        for path in sorted((ROOT / package).rglob("*"))
        if path.is_file() and path.suffix not in (".pyc", ".py")
    ]
    expected += [f"licenses/{path.relative_to(ROOT)}" for path in (ROOT / "LICENSE", *(ROOT / "LICENSES").iterdir())]
    missing = sorted({want for want in expected if not any(name.endswith(want) for name in names)})
    if extra or missing or wheel.stat().st_size > LARGEST_WHEEL:
        raise SystemExit(f"{wheel.name}: does not belong there: {extra}; missing: {missing}")


def use(wheel: Path, python: str, folder: Path) -> None:
    """Install the wheel with its base dependencies and run the commands from an empty folder.

    Raises:
        SystemExit: a command failed or said something else than it should.
    """
    run([python, "-m", "venv", str(folder)], cwd=folder.parent)
    home = folder / "empty"
    home.mkdir()
    tools = folder / "bin"
    run([str(tools / "python"), "-m", "pip", "install", "--quiet", str(wheel)], cwd=home)
    expect(run([str(tools / "python"), "-c", ABSENT], cwd=home).strip() == "[]", "torch or a relative was installed")
    expect(PROJECT["version"] in run([str(tools / "sar-classify"), "--version"], cwd=home), "--version without version")
    for command in ("sar-classify", "sar-train", "sar-export", "sar-bundle"):
        expect("Usage" in run([str(tools / command), "--help"], cwd=home), f"{command} --help shows no usage")
    run([str(tools / "python"), "-c", DRAW], cwd=home)
    (home / "new.txt").write_text("lunar eclipse\nespresso\n")
    classify = [str(tools / "sar-classify"), "image.png", "--classes", "new.txt", "--format", "jsonl"]
    (line,) = run(classify, cwd=home).splitlines()
    answer = json.loads(line)
    expect(answer["error"] is None and bool(answer["predictions"][0]["label"]), f"no label in {line}")
    refused = subprocess.run(
        [str(tools / "sar-train"), "demo"],
        cwd=home,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    expect(refused.returncode != 0 and "[train]" in refused.stderr, "sar-train without torch names no extra to install")
    expect("Traceback" not in refused.stderr, "sar-train without torch shows a traceback")
    expect("intact" in run([str(tools / "sar-bundle"), "verify"], cwd=home), "sar-bundle verify finds something")
    bare = subprocess.run(
        [str(tools / "sar-serve")], cwd=home, env=clean_environment(), capture_output=True, text=True, check=False
    )
    expect(bare.returncode == 2 and "[serve]" in bare.stderr, "sar-serve without its extra names none to install")
    serve(wheel, tools, home, answer["predictions"][0]["label"])


def serve(wheel: Path, tools: Path, home: Path, label: str) -> None:
    """Install the extra and have the image classified over HTTP.

    Raises:
        SystemExit: the server does not start, does not answer, answers something else than ``label``, or does not stop.
    """
    run([str(tools / "python"), "-m", "pip", "install", "--quiet", f"{wheel}[serve]"], cwd=home)
    expect(run([str(tools / "python"), "-c", ABSENT], cwd=home).strip() == "[]", "[serve] installs torch or a relative")
    environment = {k: v for k, v in clean_environment().items() if not k.startswith("SAR_")}
    command = [str(tools / "sar-serve"), "--port", "0"]
    with subprocess.Popen(command, cwd=home, env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            first = server.stderr.readline() if server.stderr else ""
            address = re.search(r"on (http://\S+)", first)
            expect(address is not None, f"sar-serve does not start: {first}")
            image = (home / "image.png").read_bytes()
            names = "classes=lunar+eclipse&classes=espresso"  # as in new.txt
            url = f"{address[1] if address else ''}/v1/classify?{names}"  # our own, on the loopback
            call = urllib.request.Request(url, image, {"Content-Type": "image/png"})  # noqa: S310
            with urllib.request.urlopen(call, timeout=60) as response:  # noqa: S310
                result = json.load(response)["results"][0]
            expect(result["predictions"][0]["label"] == label, f"sar-serve and sar-classify differ: {result}")
            server.terminate()
            expect(server.wait(60) == 0, "sar-serve does not stop on SIGTERM")
        finally:
            server.kill()


def run(command: list[str], cwd: Path) -> str:
    """Run a command that has to succeed and return its standard output.

    Raises:
        SystemExit: it did not; its output is shown.
    """
    done = subprocess.run(command, cwd=cwd, env=clean_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def clean_environment() -> dict[str, str]:
    """Return the environment without variables that could lead Python back to the checkout."""
    return {
        k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSAFEPATH")
    }


def expect(met: bool, complaint: str) -> None:
    """Exit with the complaint unless the condition is met.

    Raises:
        SystemExit: it is not.
    """
    if not met:
        raise SystemExit(complaint)


if __name__ == "__main__":
    raise SystemExit(main())
