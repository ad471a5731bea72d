"""The image, compose and Kubernetes files agree; nothing in the image that a server does not need.

That the Dockerfile builds, and that what comes out serves, is what ``scripts/image_test.py`` shows.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from scripts.image import pip_settings, requirements, trim
from scripts.image.builder import Config, UnavailableError, resident
from scripts.image_test import choose, find_base, table

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
UID, PORT = 10001, 8000
LINUX = {"sys_platform": "linux", "platform_machine": "x86_64"}
ARM = {"sys_platform": "linux", "platform_machine": "aarch64"}


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Dockerfile, continued lines joined, comments left out."""
    kept = [line for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(kept))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


@pytest.fixture(scope="module")
def last_stage(instructions: list[tuple[str, str]]) -> dict[str, str]:
    """The single instructions of the stage that becomes the image."""
    names = [name for name, _ in instructions]
    start = len(names) - names[::-1].index("FROM")
    return dict(instructions[start:])


@pytest.fixture(scope="module")
def environment(instructions: list[tuple[str, str]]) -> dict[str, str]:
    """What ENV sets in the stages of the image itself."""
    start = instructions.index(("FROM", "scratch AS runtime-cpu"))
    found = [re.findall(r"(\w+)=(\S+)", rest) for name, rest in instructions[start:] if name == "ENV"]
    return dict(pair for pairs in found for pair in pairs)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with other tools of the dev environment")
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    return loaded


@pytest.fixture(scope="module")
def kubernetes() -> dict[str, Any]:
    """Resources by kind."""
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with other tools of the dev environment")
    loaded = yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text("utf-8"))
    return {resource["kind"]: resource for resource in loaded}


@pytest.fixture(scope="module")
def pod(kubernetes: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = kubernetes["Deployment"]["spec"]["template"]["spec"]
    return found


def distributions(lines: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", line)[0].lower() for line in lines}


def metadata() -> list[str]:
    """``Requires-Dist`` lines as a wheel of this tree would have them."""
    lines = list(PROJECT["dependencies"])
    for extra, wanted in PROJECT["optional-dependencies"].items():
        for line in wanted:
            requirement, _, marker = line.partition(";")
            condition = f"({marker.strip()}) and extra == '{extra}'" if marker else f"extra == '{extra}'"
            lines.append(f"{requirement}; {condition}")
    return lines


class TestDockerfile:
    def test_runs_as_a_number_that_is_not_root(self, last_stage: dict[str, str]) -> None:
        assert last_stage["USER"] == f"{UID}:{UID}"

    def test_starts_the_server_itself_not_a_shell(self, last_stage: dict[str, str]) -> None:
        assert json.loads(last_stage["ENTRYPOINT"]) == ["sar-serve"]
        assert last_stage["STOPSIGNAL"] == "SIGTERM"
        assert last_stage["WORKDIR"] == "/"
        assert "sar-serve" in PROJECT["scripts"]

    def test_health_check_is_a_program_that_asks_for_readiness(self, last_stage: dict[str, str]) -> None:
        command = json.loads(re.sub(r"^.*? CMD ", "", last_stage["HEALTHCHECK"]))
        assert command[:2] == ["python", "-c"]
        compile(command[2], "HEALTHCHECK", "exec")
        assert "'/readyz'" in command[2]
        assert "--start-period" in last_stage["HEALTHCHECK"]

    def test_port_and_paths(self, last_stage: dict[str, str], environment: dict[str, str]) -> None:
        assert last_stage["EXPOSE"] == environment["SAR_PORT"] == str(PORT)
        assert environment["SAR_HOST"] == "0.0.0.0"  # noqa: S104
        assert environment["SAR_BUNDLE"] == "/bundle"
        assert environment["HOME"] == "/tmp"  # noqa: S108
        assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
        assert "SAR_API_KEY" not in environment

    def test_labels(self, last_stage: dict[str, str], instructions: list[tuple[str, str]]) -> None:
        labels = dict(re.findall(r'org\.opencontainers\.image\.([\w.]+)="([^"]*)"', last_stage["LABEL"]))
        assert {"title", "description", "licenses", "version", "revision", "created", "base.name"} <= labels.keys()
        assert labels["title"] == PROJECT["name"]
        assert labels["licenses"] == PROJECT["license"]
        assert (labels["version"], labels["base.name"]) == ("${VERSION}", "${BASE_IMAGE}")
        assert ("ARG", f"VERSION={PROJECT['version']}") in instructions

    def test_bases_are_chosen_versions(self, instructions: list[tuple[str, str]]) -> None:
        stages = [rest for name, rest in instructions if name == "FROM"]
        named = {stage.rpartition(" AS ")[2] for stage in stages if " AS " in stage}
        outside = [stage.partition(" ")[0] for stage in stages if stage.partition(" ")[0] not in named]
        assert outside == ["${BASE_IMAGE}", "scratch", "runtime-${DEVICE}"]
        assert {"runtime-cpu", "runtime-cuda"} <= named
        (base,) = (rest for name, rest in instructions if name == "ARG" and rest.startswith("BASE_IMAGE="))
        assert re.search(r":\d+\.\d+-", base)
        assert "latest" not in base

    def test_nothing_of_the_build_settings_stays(self, instructions: list[tuple[str, str]]) -> None:
        arguments = {rest.partition("=")[0] for name, rest in instructions if name == "ARG"}
        assert arguments == {"BASE_IMAGE", "CREATED", "DEVICE", "REVISION", "VERSION"}
        assert not [rest for name, rest in instructions if name == "ENV" and "INDEX" in rest]

    def test_the_context_is_what_the_wheel_is_built_from(self) -> None:
        lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if not line.startswith("#")]
        assert lines[0] == "*"
        allowed = [line.removeprefix("!") for line in lines if line.startswith("!")]
        assert [path for path in allowed if not (ROOT / path).exists()] == []
        needed = ["pyproject.toml", PROJECT["readme"], "exports/mini", "sar_infer", "sar_train"]
        needed += ["scripts/hatch_bundle.py", "scripts/image/requirements.py", "scripts/image/trim.py"]
        needed += [path.name for path in ROOT.iterdir() if any(fnmatch(path.name, p) for p in ("LICENSE*", "NOTICE"))]
        assert sorted(allowed) == sorted(needed)


class TestRequirements:
    @pytest.mark.parametrize("platform", [LINUX, ARM], ids=["x86_64", "aarch64"])
    def test_a_cpu_image_gets_the_plain_runtime_once_and_the_server(self, platform: dict[str, str]) -> None:
        chosen = requirements.select(metadata(), "cpu", platform)
        assert [line for line in chosen if "onnxruntime" in line] in (
            ["onnxruntime<2,>=1.28"],
            ["onnxruntime<2,>=1.24"],
        )
        assert {"uvicorn", "fastapi", "numpy", "pillow", "click"} <= distributions(chosen)

    def test_a_cuda_image_gets_the_gpu_runtime_with_its_libraries_alone(self) -> None:
        chosen = requirements.select(metadata(), "cuda", LINUX)
        assert distributions([line for line in chosen if "onnxruntime" in line]) == {"onnxruntime-gpu"}
        assert [line for line in chosen if "[cuda,cudnn]" in line]

    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_no_training_library(self, device: str) -> None:
        chosen = distributions(requirements.select(metadata(), device, LINUX))
        extras = PROJECT["optional-dependencies"]
        assert not chosen & distributions([*extras["train"], *extras["dev"]])
        assert not {name for name in chosen if re.search("torch|timm|open_clip|^onnx$|datasets|ray$|openai", name)}

    def test_cuda_where_there_is_none(self) -> None:
        with pytest.raises(SystemExit, match="no wheel for this platform"):
            requirements.select(metadata(), "cuda", ARM)


class TestTrim:
    def test_system(self, tmp_path: Path) -> None:
        kept = ["usr/lib/python3.13/json/decoder.py", "usr/share/doc/zlib/copyright", "usr/bin/sh", "usr/bin/python3"]
        gone = ["usr/lib/python3.13/ensurepip/_bundled/pip.whl", "usr/local/lib/python3.13/site-packages/pip/main.py"]
        gone += ["usr/lib/python3/dist-packages/pip-25.dist-info/RECORD", "usr/bin/pip3", "usr/local/bin/idle3"]
        gone += ["usr/share/locale/de/x.mo", "usr/share/doc/zlib/changelog.gz", "var/cache/apt/pkgcache.bin"]
        for name in kept + gone:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("")
        (tmp_path / "usr/bin/sh").chmod(0o4755)
        for name in ("tmp", "var/tmp"):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / name).chmod(0o1777)
        assert trim.main("system", tmp_path) == 0
        assert [name for name in kept if not (tmp_path / name).is_file()] == []
        assert [name for name in gone if (tmp_path / name).exists()] == []
        assert stat.S_IMODE((tmp_path / "usr/bin/sh").stat().st_mode) == 0o755
        assert stat.S_IMODE((tmp_path / "tmp").stat().st_mode) == 0o1777
        assert stat.S_IMODE((tmp_path / "var/tmp").stat().st_mode) == 0o1775
        assert list((tmp_path / "usr/lib/python3.13/json/__pycache__").glob("decoder.*.pyc"))

    def test_packages(self, tmp_path: Path) -> None:
        site = tmp_path / "lib/python3.13/site-packages"
        kept = ["sar_infer/__init__.py", "numpy/__init__.py", "numpy/typing/__init__.py", "onnxruntime/capi/x.py"]
        gone = ["sar_train/__init__.py", "numpy/_core/tests/t.py", "numpy/__init__.pyi", "onnxruntime/tools/x.py"]
        for name in kept + gone:
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_text("")
        assert trim.main("packages", tmp_path) == 0
        assert [name for name in kept if not (site / name).is_file()] == []
        assert [name for name in gone if (site / name).exists()] == []

    def test_what_does_not_compile_is_an_error(self, tmp_path: Path) -> None:
        broken = tmp_path / "lib/python3.13/site-packages/broken.py"
        broken.parent.mkdir(parents=True)
        broken.write_text("def")
        assert trim.main("packages", tmp_path) == 1


class TestCompose:
    @pytest.mark.parametrize("service", ["cpu", "gpu"])
    def test_is_as_closed_as_the_image_allows(self, compose: dict[str, Any], service: str) -> None:
        found = compose["services"][service]
        assert found["user"] == f"{UID}:{UID}"
        assert found["read_only"] is True
        assert found["tmpfs"] == ["/tmp"]  # noqa: S108
        assert found["cap_drop"] == ["ALL"]
        assert found["security_opt"] == ["no-new-privileges:true"]
        assert found["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
        assert found["volumes"][0].endswith(":/bundle:ro")
        assert "latest" not in found["image"]

    def test_the_gpu_is_asked_for_by_profile(self, compose: dict[str, Any]) -> None:
        cpu, gpu = compose["services"]["cpu"], compose["services"]["gpu"]
        assert "profiles" not in cpu
        assert gpu["profiles"] == ["gpu"]
        assert (cpu["build"]["args"]["DEVICE"], gpu["build"]["args"]["DEVICE"]) == ("cpu", "cuda")
        (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
        assert gpu["environment"]["SAR_DEVICE"] == "cuda"

    def test_the_state_folder_is_the_image_s(
        self, compose: dict[str, Any], instructions: list[tuple[str, str]]
    ) -> None:
        found = compose["services"]["cpu"]
        assert "state:/state" in found["volumes"]
        assert found["environment"]["SAR_STATE"] == "/state"
        assert ("COPY", f"--from=build --chown={UID}:{UID} /state /state") in instructions

    def test_waits_for_the_drain(self, compose: dict[str, Any]) -> None:
        assert int(compose["services"]["cpu"]["stop_grace_period"].removesuffix("s")) > 20


class TestKubernetes:
    def test_user_and_rights(self, pod: dict[str, Any]) -> None:
        whole, (server,) = pod["securityContext"], pod["containers"]
        assert (whole["runAsNonRoot"], whole["runAsUser"], whole["runAsGroup"]) == (True, UID, UID)
        own = server["securityContext"]
        assert (own["allowPrivilegeEscalation"], own["readOnlyRootFilesystem"]) == (False, True)
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert pod["automountServiceAccountToken"] is False
        # Of a Service named sar-clip it would set SAR_CLIP_PORT and its like.
        assert pod["enableServiceLinks"] is False

    def test_image_and_port(self, kubernetes: dict[str, Any], pod: dict[str, Any]) -> None:
        (server,) = pod["containers"]
        assert server["image"] == f"sar-clip:{PROJECT['version']}"
        assert server["ports"] == [{"name": "http", "containerPort": PORT}]
        assert kubernetes["Service"]["spec"]["ports"][0]["targetPort"] == "http"

    def test_probes(self, pod: dict[str, Any]) -> None:
        (server,) = pod["containers"]
        paths = {kind: server[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
        assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/healthz"}

    def test_volumes(self, pod: dict[str, Any]) -> None:
        (server,) = pod["containers"]
        mounts = {mount["mountPath"]: mount for mount in server["volumeMounts"]}
        assert mounts["/bundle"]["readOnly"] is True
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert "emptyDir" in volumes[mounts["/tmp"]["name"]]  # noqa: S108
        assert volumes.keys() == {mount["name"] for mount in mounts.values()}

    def test_is_given_time_to_end(self, pod: dict[str, Any]) -> None:
        given = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
        assert pod["terminationGracePeriodSeconds"] > int(given["SAR_NOTICE"]) + int(given["SAR_DRAIN"])

    def test_no_way_out(self, kubernetes: dict[str, Any]) -> None:
        policy = kubernetes["NetworkPolicy"]["spec"]
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        assert policy["egress"] == []
        assert policy["ingress"] == [{"ports": [{"protocol": "TCP", "port": PORT}]}]

    def test_everything_means_the_same_pods(self, kubernetes: dict[str, Any]) -> None:
        labels = kubernetes["Deployment"]["spec"]["template"]["metadata"]["labels"]
        assert kubernetes["Deployment"]["spec"]["selector"]["matchLabels"] == labels
        assert kubernetes["Service"]["spec"]["selector"] == labels
        assert kubernetes["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
        assert kubernetes["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels


def test_every_setting_given_is_an_option_of_the_server(
    compose: dict[str, Any], pod: dict[str, Any], environment: dict[str, str]
) -> None:
    pytest.importorskip("sar_infer.cli.serve", reason="no server yet")
    from sar_infer.cli.serve import main

    known = {str(option.envvar) for option in main.params if option.envvar} | {"SAR_API_KEY"}
    given = {
        *environment,
        *compose["services"]["gpu"]["environment"],
        *(e["name"] for e in pod["containers"][0]["env"]),
    }
    assert {name for name in given if name.startswith("SAR_")} <= known


class TestTheImageTest:
    @pytest.mark.skipif(os.name == "nt", reason="its tools are Linux's")
    def test_without_a_tool_it_says_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(UnavailableError, match="docker, podman or buildah"):
            choose(None, tmp_path)

    def test_without_a_base_it_says_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Offline:
            def pull(self, image: str) -> bool:
                return False

        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(UnavailableError, match=r"python:3\.\d+-slim-trixie cannot be pulled"):
            find_base(Offline(), None, tmp_path)  # type: ignore[arg-type]

    def test_pip_settings_travel_as_secrets(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in os.environ if name.startswith("PIP_")] + [*pip_settings.CERTIFICATES]:
            monkeypatch.delenv(name, raising=False)
        wheels = tmp_path / "wheels"
        wheels.mkdir()
        (tmp_path / "own.pem").write_text("")
        (tmp_path / "given.conf").write_text(
            f"[global]\nindex-url = https://user:secret@index.invalid/simple\ncert = {tmp_path}/own.pem\n"
            f"find-links = {wheels}\n[list]\nformat = json\n"
        )
        monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "given.conf"))
        monkeypatch.setenv("PIP_TIMEOUT", "7")
        secrets, folder = pip_settings.pip_settings(tmp_path)
        assert folder == wheels
        assert secrets["ca.pem"] == tmp_path / "own.pem"
        written = secrets["pip.conf"].read_text()
        assert "index-url = https://user:secret@index.invalid/simple\n" in written
        assert {"cert = /run/secrets/ca.pem", "find-links = /mnt", "timeout = 7"} <= set(written.splitlines())
        assert "format" not in written
        if sys.platform != "win32":
            assert stat.S_IMODE(secrets["pip.conf"].stat().st_mode) == 0o600

    def test_reads_what_a_tool_prints(self) -> None:
        config = Config.read({"User": "10001", "Env": ["A=b=c"], "Healthcheck": {"Test": ["CMD", "x"]}, "Labels": None})
        assert (config.user, config.environment, config.healthcheck, config.labels) == (
            "10001",
            {"A": "b=c"},
            ["CMD", "x"],
            {},
        )
        assert Config.read({}).entrypoint == []
        assert resident("Name:\tx\nVmRSS:\t  1234 kB\n") == 1234
        assert resident("") == 0
        assert "image mib" in table({"image_mib": 1, "pulled_mib": None})
