"""The command, as its users have it."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner, Result
from support.banks import example_bank
from support.pictures import jpeg
from support.precisions import add_precision
from support.servers import serving

from sar_infer.bundle.bundle import default_bundle
from sar_infer.bundle.manifest import BANK
from sar_infer.cli.bank import main as sar_bank
from sar_infer.cli.serve import main
from sar_infer.server import startup

Run = Callable[..., Result]
MAIN = "from sar_infer.cli.serve import main; main()"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Yield a function that runs the command in this process, where nothing of it stays; it must end by itself."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(startup, "set_up_logging", lambda *_: None)
    bind = startup.bind
    with contextlib.ExitStack() as listeners:
        monkeypatch.setattr(startup, "bind", lambda host, port: listeners.enter_context(bind(host, port)))
        yield lambda *call, **environment: CliRunner().invoke(main, call, env={"SAR_WORKERS": "0", **environment})


def one_line(result: Result) -> str:
    """Return the message of a command that was refused, which is all that it printed."""
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize("key", ["max-megapixels", "deadline", "body-timeout", "notice"])
def test_a_number_that_is_none_is_refused(key: str) -> None:
    result = CliRunner().invoke(main, ["--check", "--set", f"{key}=nan"])
    assert result.exit_code == 2
    assert "expected a finite number, got nan" in result.stderr


def test_check_verifies_a_bundle_and_exits(run: Run, bundle_path: Path, bundle_copy: Path) -> None:
    good = run("--check", "--bundle", str(bundle_path))
    assert (good.exit_code, good.stderr) == (0, "")
    assert re.search(r"^classes +4: ", good.stdout, re.MULTILINE)
    (bundle_copy / "bank.safetensors").write_bytes(b"damaged")
    one_line(run("--check", SAR_BUNDLE=str(bundle_copy)))


def test_check_describes_the_bank_file(run: Run, bundle_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    call = ("--check", "--bundle", str(bundle_path), "--bank", str(file))
    assert CliRunner().invoke(sar_bank, ["add", str(file), "mug", "--bundle", str(bundle_path)]).exit_code == 0
    assert re.search(rf"^bank +{re.escape(str(file))}, 5 classes: .*mug$", run(*call).stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("call", "environment"),
    [([], {}), (["--check"], {}), (["--check"], {"SAR_API_KEY": "k"})],
    ids=["without a key", "check", "check with a key"],
)
def test_a_misspelt_bank_is_refused_and_not_made(
    run: Run, bundle_path: Path, tmp_path: Path, call: list[str], environment: dict[str, str]
) -> None:
    file = tmp_path / "misspelt.safetensors"
    says = one_line(run(*call, "--port", "0", "--bundle", str(bundle_path), "--bank", str(file), **environment))
    assert f"{file}: no such bank file; sar-bank create or add makes one" in says
    assert not file.exists()


def test_with_a_key_a_missing_bank_is_a_warning_of_one_line_whatever_its_name(
    bundle_path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "b\x1b[31m\n.safetensors"
    with serving("--bundle", str(bundle_path), "--bank", str(file), "--workers", "0", key="k") as server:
        httpx2.get(f"{server.url}/healthz")
        lines = server.logged("/healthz")
        (warning,) = [line for line in lines if "WARNING" in line]
        httpx2.put(f"{server.url}/v1/classes/mug", headers=server.headers)
    served = "the 4 classes of the bundle are served until the first change"
    assert f"b\\x1b[31m\\n.safetensors does not exist yet; {served}" in warning
    assert all(map(str.isprintable, lines))
    assert file.exists()


def test_a_variable_that_no_command_has_is_a_warning(
    run: Run, bundle_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    misspelt = {"SAR_IMAGE_TIMOUT": "2", "SAR_KEY": "k", "SAR_BANK_ADD_STRCT": "1", "SAR_UNLIKE_ALL_OTHERS": ""}
    sound = {"SAR_DEADLINE": "2", "SAR_BANK_ADD_STRICT": "1", "SAR_BUNDLE_VERIFY_PHOTOS": "1", "SAR_TRAIN_SHOTS": "1"}
    linked = {"SAR_CLIP_SERVICE_HOST": "10.0.0.1", "SAR_CLIP_PORT": "tcp://10.0.0.1:80"}
    assert run("--check", "--bundle", str(bundle_path), **misspelt, **sound, **linked).exit_code == 0
    hints = ["BANK_ADD_STRCT; did you mean SAR_BANK_ADD_STRICT?", "IMAGE_TIMOUT; did you mean SAR_IMAGE_TIMEOUT?"]
    hints += ["KEY; did you mean SAR_API_KEY?", "UNLIKE_ALL_OTHERS"]
    lines = [line.replace(" does not exist for any command", "") for line in caplog.messages]
    assert lines == [f"the environment variable SAR_{hint}" for hint in hints]


@pytest.mark.skipif(sys.platform != "linux", reason="a limit that other systems do not keep")
def test_too_little_address_space_is_one_line(bundle_path: Path) -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (400 << 20, -1)); " + MAIN
    command = [sys.executable, "-c", code, "--bundle", str(bundle_path), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert "address space (ulimit -v)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["--bundle", "/nowhere"], {}, "no such folder"),
        (["--set", "formats=JPEG,EXE"], {}, "formats: expected some of JPEG, PNG"),
        (["--set", "formats="], {}, "formats: expected some of"),
        (["--host", "999.1.1.1"], {}, "cannot listen on 999.1.1.1"),
        (["--api-key-file", "/nowhere"], {}, "--api-key-file: /nowhere cannot be read: No such file or directory\n"),
        (["--allowed-host", "shop.example:80"], {}, "--allowed-host: expected a host name without scheme and port"),
        (["--cors-origin", "https://shop.example/"], {}, "--cors-origin: expected scheme and host without path"),
        ([], {"SAR_CORS_ORIGIN": "shop.example"}, "--cors-origin: expected scheme and host without path"),
        ([], {"SAR_API_KEY": " "}, "the key is empty"),
        ([], {"SAR_API_KEY": "key\nschlüssel"}, "the key has characters that no header carries"),
        (["--bank", "/dev/null/x.safetensors"], {}, "/dev/null/x.safetensors: no such folder; make it first"),
        (["--bank", "/dev/null/x.safetensors"], {"SAR_API_KEY": "k"}, "/dev/null/x.safetensors: no such folder"),
        (["--bank", "/usr"], {"SAR_API_KEY": "k"}, "/usr: is a folder; expected a bank file"),
        (["--bank", ""], {}, "--bank: expected a value, got an empty text"),
        (["--bundle", ""], {}, "--bundle: expected a value, got an empty text"),
        (["--host", ""], {}, "--host: expected a value, got an empty text"),
        (["--bank", "/usr/mine"], {"SAR_API_KEY": "k"}, "the name of a new one ends in .safetensors"),
        (["--bank", str(default_bundle() / BANK)], {"SAR_API_KEY": "k"}, "is part of a bundle, which never changes"),
        (["--bank", str(default_bundle())], {}, "is a bundle; name a bank file outside of it"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_2(
    run: Run, arguments: list[str], environment: dict[str, str], says: str
) -> None:
    assert says in one_line(run("--port", "0", *arguments, **environment))


@pytest.mark.parametrize("environment", [{}, {"SAR_API_KEY": "k"}])
def test_a_bank_of_another_encoder_needs_a_named_bundle(run: Run, tmp_path: Path, environment: dict[str, str]) -> None:
    file = tmp_path / "shop.safetensors"
    example_bank().save(file)
    before = file.read_bytes()
    says = f"{file}: belongs to another encoder (expected"
    assert says in one_line(run("--port", "0", "--bank", str(file), **environment))
    assert (file.read_bytes(), [*tmp_path.iterdir()]) == (before, [file])


def test_a_port_that_is_taken_is_one_line(run: Run, bundle_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused = one_line(run("--bundle", str(bundle_path), "--port", str(port)))
    assert f"cannot listen on 127.0.0.1, port {port}: " in refused


def test_int8_on_a_processor_without_vnni_is_logged_once(
    run: Run, bundle_copy: Path, cpu: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    add_precision(bundle_copy)
    for flags, lines in (("flags : avx2", 1), ("flags : avx2 avx_vnni", 0)):
        cpu(flags)
        done = run("--check", "--bundle", str(bundle_copy), "--precision", "int8")
        assert (done.exit_code, caplog.text.count("this processor has no VNNI")) == (0, lines), done.stderr
        caplog.clear()


TOLD_TO_STOP_WHILE_IT_WRITES = """
import os, signal, sys
class Stream:
    busy = False
    def write(self, text):
        if self.busy:
            raise RuntimeError("reentrant call")
        self.busy = True
        if "GET /livez" in text:
            os.kill(os.getpid(), signal.SIGTERM)
        os.write(2, text.encode())
        self.busy = False
    def flush(self):
        pass
sys.stderr = Stream()
"""


def test_a_signal_while_a_line_is_written_stops_it_as_any_other(bundle_path: Path) -> None:
    code = ("-c", TOLD_TO_STOP_WHILE_IT_WRITES + MAIN)
    with serving("--bundle", str(bundle_path), "--workers", "0", python=code) as server:
        assert httpx2.get(f"{server.url}/livez").status_code == 200
        assert server.process.wait(30) == 0
        assert server.logged("stopping: not ready any more")


def test_images_smaller_than_the_encoders_own_are_no_limit(run: Run, bundle_path: Path) -> None:
    """The encoder of this bundle takes 32 x 32 pixels."""
    line = "Error: max-megapixels 0.001: the encoder's own images have 0.001024 megapixels; expected no less\n"
    assert one_line(run("--check", "--bundle", str(bundle_path), "--set", "max-megapixels=0.001")) == line
    assert run("--check", "--bundle", str(bundle_path), "--set", "max-megapixels=0.001024").exit_code == 0


def test_limits_come_from_options_and_the_log_is_json_if_asked_for(bundle_copy: Path, tmp_path: Path) -> None:
    add_precision(bundle_copy)
    (tmp_path / "key").write_text("from a file\n\nthe next\r\n")
    (tmp_path / "sar.toml").write_text(
        'max-body = 1\nmax-images = 2\nmax_classes = 3\nformats = ["png"]\nmax-megapixels = 0.5\nprecision = "int8"\n'
        'pages = false\nworkers = 0\nlog-format = "json"\n'
    )
    options = ("--api-key-file", str(tmp_path / "key"), "--config", str(tmp_path / "sar.toml"))
    call = ("--bundle", str(bundle_copy), *options)
    with serving(*call) as server, httpx2.Client(base_url=server.url) as client:
        client.get("/healthz", headers={"X-Request-ID": "mine"})
        client.post("/v1/reload", headers={"X-Request-ID": "refused"})
        assert client.get("/v1/model", headers={"Authorization": "Bearer the next"}).status_code == 200
        client.headers["Authorization"] = "Bearer from a file"
        model = client.get("/v1/model").json()
        limits = {name: model["limits"][name] for name in ("body_bytes", "images", "classes", "formats", "pixels")}
        assert limits == {"body_bytes": 2**20, "images": 2, "classes": 3, "formats": ["PNG"], "pixels": 500_000}
        assert model["precision"] == "int8"
        assert client.get("/ui").status_code == 404
        answer = client.post("/v1/classify", content=jpeg(), headers={"Content-Type": "image/jpeg"})
        assert answer.json()["code"] == "unsupported-format"
        log = [json.loads(line) for line in server.logged("unsupported-format") if line.startswith("{")]
    assert any(", int8, CPU" in line["message"] for line in log)
    line, refused = [line for line in log if line["logger"] == "sar_infer.access"][:2]
    assert (line["method"], line["path"], line["status"], line["request_id"]) == ("GET", "/healthz", 200, "mine")
    assert line["client"] == "127.0.0.1"
    assert "code" not in line
    assert (refused["status"], refused["code"], refused["request_id"]) == (401, "unauthorised", "refused")


def test_nothing_but_the_loopback_is_listened_on_by_default() -> None:
    (host,) = [option.default for option in main.params if option.name == "host"]
    assert host == "127.0.0.1"
