"""Make a folder with a page that classifies photos by one ONNX file, in the browser alone.

::

    sar-bundle onnx --bank shop.safetensors --out shop.onnx
    python examples/browser/prepare.py shop.onnx page
    python -m http.server --directory page

The page has the modules of `sar-serve`'s page `/ui`; `api.js` answers what that asks its server for. onnxruntime-web
comes from npm once, checked by its digest; what is in the folder then needs no network. Model and WebAssembly are
packed, under names that no server unpacks on its own.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib import resources
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = "onnxruntime-web@1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'"
)
HEAD = f"""<meta http-equiv="Content-Security-Policy" content="{POLICY}">
  <link rel="stylesheet" href="static/page.css">
  <script type="module" src="static/page.js"></script>
</head>"""
WORDS = {
    "<html ": '<html data-place="page" ',
    "</head>": HEAD,
    '<nav aria-label="Pages"><a href="ui" aria-current="page">Classify</a> <a href="openapi.json">API</a></nav>': "",
    'href="ui"': 'href="."',
    ' The API does not: <a href="openapi.json">see its routes</a>.': "",
    "a name of yours that is not in the server’s bank": "a class that was taught here",
    "</span> on the server": "</span> in this page",
    "class of the server": "class of this page",
    "The server’s classes": "The page’s classes",
    "Add a class by its name. The ranking follows at once.": "Type the name of a new class, then give it photos.",
    "Drop two photos on a class, or use “+ photos”, to teach it.": "Two photos of a class are enough to begin with.",
}


def fetch_runtime(folder: Path) -> None:
    """Put the files of onnxruntime-web into a folder, by npm, unless they are there."""
    if all((folder / name).is_file() for name in RUNTIME):
        return
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("prepare.py needs npm once, to fetch onnxruntime-web: install Node.js")
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run(
            [npm, "pack", PACKAGE, "--silent", "--pack-destination", temporary], check=True, stdout=sys.stderr
        )
        (archive,) = Path(temporary).iterdir()
        if base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode() != SHA512:
            raise SystemExit(f"{PACKAGE}: the archive that npm gave has another digest; nothing was used of it")
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as package:
            for name in RUNTIME:
                package.extract(f"package/dist/{name}", temporary, filter="data")
                shutil.move(Path(temporary, "package", "dist", name), folder / name)


def packed(path: Path) -> Path:
    """Return the name of a packed file."""
    return path.with_name(f"{path.name}.packed")


def pack(source: Path, target: Path) -> None:
    """Write a file as gzip."""
    target.write_bytes(gzip.compress(source.read_bytes(), mtime=0))


def prepare(model: Path, page: Path) -> None:
    """Write the page into a folder, with the model."""
    static = page / "static"
    static.mkdir(parents=True, exist_ok=True)
    program, *modules = (page / "ort" / name for name in reversed(RUNTIME))
    if not all(path.is_file() for path in (packed(program), *modules)):
        fetch_runtime(page / "ort")
        pack(program, packed(program))
        program.unlink()
    sources = resources.files("sar_infer.server") / "static"
    shared = [one for one in sources.iterdir() if not one.name.startswith(("docs.", "schema.", "ui.html"))]
    for source in (*shared, resources.files("sar_infer.evaluation") / "base.css"):
        (static / source.name).write_bytes(source.read_bytes())
    for own in (*HERE.glob("*.js"), *HERE.glob("*.css")):
        shutil.copyfile(own, static / own.name)
    html = (sources / "ui.html").read_text("utf-8")
    for before, after in WORDS.items():
        if before not in html:
            raise SystemExit(f"prepare.py: ui.html has no {before!r} any more")
        html = html.replace(before, after)
    (page / "index.html").write_text(html, "utf-8")
    pack(model, packed(page / "model.onnx"))


def main() -> None:
    """Prepare the page that the command line names."""
    if len(sys.argv) != 3:
        raise SystemExit("usage: python examples/browser/prepare.py MODEL.onnx FOLDER")
    if not Path(sys.argv[1]).is_file():
        raise SystemExit(f"{sys.argv[1]}: no such file; write it with sar-bundle onnx --out {sys.argv[1]}")
    try:
        prepare(Path(sys.argv[1]), Path(sys.argv[2]))
    except subprocess.CalledProcessError:
        raise SystemExit(f"npm cannot fetch {PACKAGE}; connect to its registry and run this again") from None
    print(f"{sys.argv[2]}: next: python -m http.server --directory {sys.argv[2]}, then open localhost:8000")


if __name__ == "__main__":
    main()
