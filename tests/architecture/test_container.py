"""The image, compose and Kubernetes files agree; nothing in the image that a server does not need.

That the Dockerfile builds, and that what comes out serves, is what ``scripts/image_test.py`` shows.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from scripts.image_test import pip_secrets

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
UID, PORT = 10001, 8000
LINUX = {"sys_platform": "linux", "platform_machine": "x86_64"}
LABELS = {"title": "name", "version": "version", "licenses": "license"}
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
    """Return the variables that ENV sets in the image."""
    start = len(instructions) - [name for name, _ in instructions][::-1].index("FROM")
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


def required(project: dict[str, Any], extra: str, platform: dict[str, str]) -> list[str]:
    """Names that the project and one of its extras ask for on a platform."""
    lines = map(Requirement, [*project["dependencies"], *project["optional-dependencies"].get(extra, [])])
    return [line.name.lower() for line in lines if not line.marker or line.marker.evaluate(platform)]


def edited_for_cpus() -> dict[str, Any]:
    (edit,) = re.findall(r"cpu\) sed -i '(.*)' pyproject.toml", (ROOT / "Dockerfile").read_text("utf-8"))
    _, old, new, _ = edit.split("/")
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8").replace(old, new))["project"]
    return project


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
        assert environment["ORT_DISABLE_TELEMETRY"] == "1"
        assert "SAR_API_KEY" not in environment

    def test_labels(self, last_stage: dict[str, str]) -> None:
        labels = dict(re.findall(r'org\.opencontainers\.image\.([\w.]+)="([^"]*)"', last_stage["LABEL"]))
        assert labels == {key: PROJECT[other] for key, other in LABELS.items()}

    def test_the_base_is_a_chosen_version(self, instructions: list[tuple[str, str]]) -> None:
        assert [rest for name, rest in instructions if name == "FROM"] == ["${BASE_IMAGE} AS build", "${BASE_IMAGE}"]
        (base,) = (rest for name, rest in instructions if name == "ARG" and rest.startswith("BASE_IMAGE="))
        assert re.search(r":\d+\.\d+-", base)

    def test_nothing_of_the_build_settings_stays(self, instructions: list[tuple[str, str]]) -> None:
        arguments = {rest.partition("=")[0] for name, rest in instructions if name == "ARG"}
        assert arguments == {"BASE_IMAGE", "DEVICE"}
        assert not [rest for name, rest in instructions if name == "ENV" and "INDEX" in rest]

    def test_the_context_is_what_the_wheel_is_built_from(self) -> None:
        lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if not line.startswith("#")]
        assert lines[0] == "*"
        allowed = [line.removeprefix("!") for line in lines if line.startswith("!")]
        assert [path for path in allowed if not (ROOT / path).exists()] == []
        needed = ["pyproject.toml", PROJECT["readme"], "exports/mini", "sar_infer", "sar_train"]
        needed += ["scripts/hatch_bundle.py"]
        needed += [path.name for path in ROOT.iterdir() if any(fnmatch(path.name, p) for p in ("LICENSE*", "NOTICE"))]
        assert sorted(allowed) == sorted(needed)
        assert "sar_train/**/*.safetensors" in lines


class TestRequirements:
    """Of the wheel that the Dockerfile builds, after its edit of pyproject.toml for CPUs."""

    @pytest.mark.parametrize("platform", [LINUX, ARM], ids=["x86_64", "aarch64"])
    def test_a_cpu_image_gets_the_plain_runtime_once_and_the_server(self, platform: dict[str, str]) -> None:
        chosen = required(edited_for_cpus(), "serve", platform)
        assert [name for name in chosen if "onnxruntime" in name] == ["onnxruntime"]
        assert {"uvicorn", "fastapi", "numpy", "pillow", "click"} <= {*chosen}

    def test_a_cuda_image_gets_the_gpu_runtime_alone(self) -> None:
        chosen = required(PROJECT, "serve", LINUX) + required(PROJECT, "cuda", LINUX)
        assert {name for name in chosen if "onnxruntime" in name} == {"onnxruntime-gpu"}

    @pytest.mark.parametrize("extra", ["serve", "cuda"])
    def test_no_training_library(self, extra: str) -> None:
        chosen = {*required(PROJECT, extra, LINUX)}
        assert not chosen & {*required(PROJECT, "train", LINUX)} - {*required(PROJECT, "", LINUX)}


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
        assert found["environment"]["SAR_BANK"] == "/state/bank.safetensors"
        assert ("COPY", f"--from=build --chown={UID}:{UID} /state /state") in instructions

    def test_waits_for_the_drain(self, compose: dict[str, Any]) -> None:
        assert int(compose["services"]["cpu"]["stop_grace_period"].removesuffix("s")) > 20


class TestKubernetes:
    def test_the_bank_file_lies_in_a_folder_of_its_own(self, pod: dict[str, Any]) -> None:
        (server,) = pod["containers"]
        environment = {entry["name"]: entry.get("value") for entry in server["env"]}
        folder, _, name = environment["SAR_BANK"].rpartition("/")
        (mount,) = [mount for mount in server["volumeMounts"] if mount["mountPath"] == folder]
        assert name.endswith(".safetensors")
        assert not mount.keys() & {"subPath", "readOnly"}  # a file mounted alone could not be replaced
        (volume,) = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]
        assert volume["persistentVolumeClaim"] == {"claimName": "sar-clip-bank"}

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
    @pytest.mark.parametrize("required", ["0", "1"])
    def test_without_a_tool_it_says_so(self, tmp_path: Path, required: str) -> None:
        for name in ("bash", "dirname", "id", "mktemp", "rm", "timeout"):
            (tmp_path / name).symlink_to(shutil.which(name) or "")
        done = subprocess.run(
            [ROOT / ".ci" / "image"],
            env={"PATH": str(tmp_path), "SAR_REQUIRE_IMAGE": required},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (int(required), "")
        assert done.stdout.startswith("image: skipped, nothing tested: neither docker nor podman works")

    def test_pip_settings_travel_as_secrets(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in os.environ if name.startswith("PIP_")]:
            monkeypatch.delenv(name)
        (tmp_path / "own.pem").write_text("")
        (tmp_path / "given.conf").write_text(
            "[global]\nindex-url = https://user:secret@index.invalid/simple\ntimeout = 3\n"
            f"cert = {tmp_path}/own.pem\n[list]\nformat = json\n"
        )
        monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "given.conf"))
        monkeypatch.setenv("PIP_TIMEOUT", "7")
        secrets = pip_secrets(tmp_path)
        assert secrets["ca.pem"] == tmp_path / "own.pem"
        written = secrets["pip.conf"].read_text().splitlines()
        assert "index-url = https://user:secret@index.invalid/simple" in written
        assert {"[global]", "cert = /run/secrets/ca.pem", "timeout = 7"} <= set(written)
        assert not [line for line in written if "format" in line or line == "timeout = 3"]
        if sys.platform != "win32":
            assert stat.S_IMODE(secrets["pip.conf"].stat().st_mode) == 0o600
