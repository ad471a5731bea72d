"""The image, compose and Kubernetes files agree; nothing in the image that a server does not need.

That the Dockerfile builds, and that the image has its user, health check and entry point and serves, is what
``scripts/image_test.py`` shows.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from sar_infer.cli.serve import main as sar_serve
from scripts.image_test import pip_secrets

yaml = pytest.importorskip("yaml", reason="PyYAML comes with other tools of the dev environment")

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
UID, PORT = 10001, 8000
LINUX = {"sys_platform": "linux", "platform_machine": "x86_64"}
ARM = {"sys_platform": "linux", "platform_machine": "aarch64"}
DOCKERFILE = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text("utf-8"))
"""With continued lines joined."""
IMAGE = DOCKERFILE.rpartition("FROM ${BASE_IMAGE}")[2]
"""The stage that becomes the image."""
ENVIRONMENT = dict(re.findall(r"(\w+)=(\S+)", " ".join(re.findall(r"^ENV (.*)", IMAGE, re.MULTILINE))))
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]
KUBERNETES: dict[str, Any] = {
    resource["kind"]: resource
    for resource in yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text("utf-8"))
}
POD: dict[str, Any] = KUBERNETES["Deployment"]["spec"]["template"]["spec"]
(SERVER,) = POD["containers"]
SETTINGS = {entry["name"]: entry.get("value") for entry in SERVER["env"]}
MOUNTS = {mount["mountPath"]: mount for mount in SERVER["volumeMounts"]}


def test_every_file_names_the_same_version_user_and_port() -> None:
    version = PROJECT["version"]
    assert f'image.version="{version}"' in IMAGE
    assert SERVER["image"] == f"sar-clip:{version}"
    assert re.search(rf"^USER {UID}:{UID}$", IMAGE, re.MULTILINE)
    assert f"COPY --from=build --chown={UID}:{UID} /state /state" in IMAGE
    assert {service["user"] for service in SERVICES.values()} == {f"{UID}:{UID}"}
    assert (POD["securityContext"]["runAsUser"], POD["securityContext"]["runAsGroup"]) == (UID, UID)
    assert ENVIRONMENT["SAR_PORT"] == str(PORT)
    assert {port for service in SERVICES.values() for port in service["ports"]} == {f"127.0.0.1:{PORT}:{PORT}"}
    assert SERVER["ports"] == [{"name": "http", "containerPort": PORT}]
    assert KUBERNETES["Service"]["spec"]["ports"][0]["targetPort"] == "http"
    assert KUBERNETES["NetworkPolicy"]["spec"]["ingress"] == [{"ports": [{"protocol": "TCP", "port": PORT}]}]


def test_build_arguments_are_those_that_documents_and_compose_name() -> None:
    defaults = dict(re.findall(r"^ARG (\w+)=(\S+)", DOCKERFILE, re.MULTILINE))
    pages = [(path, path.read_text("utf-8")) for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))]
    table = re.search(r"^\| build argument \|.*\n(?:\|.*\n)+", dict(pages)[ROOT / "docs" / "operate.md"], re.MULTILINE)
    assert table
    documented = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", table[0], re.MULTILINE))
    assert documented == {"BASE_IMAGE": "see `Dockerfile`", "DEVICE": f"`{defaults['DEVICE']}`"}
    assert documented.keys() == defaults.keys()
    devices = re.findall(r"(?<=\s)(\w+)\) ", DOCKERFILE)
    assert devices == ["cpu", "cuda"]
    named = [argument for _, text in pages for argument in re.findall(r"--build-arg (\w+)=(\w+)", text)]
    named += [argument for service in SERVICES.values() for argument in service["build"]["args"].items()]
    assert {*named} == {("DEVICE", device) for device in devices}


def test_compose_has_a_gpu_only_under_its_profile() -> None:
    page = (ROOT / "docs" / "operate.md").read_text("utf-8")
    ((profile, service),) = re.findall(r"docker compose --profile (\w+) up (\w+)", page)
    assert {name: spec.get("profiles", []) for name, spec in SERVICES.items()} == {"cpu": [], service: [profile]}
    gpu, cpu = SERVICES[service], SERVICES["cpu"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert (gpu["build"]["args"]["DEVICE"], gpu["environment"]["SAR_DEVICE"]) == ("cuda", "cuda")
    assert gpu["environment"].items() >= cpu["environment"].items()
    assert gpu["image"] != cpu["image"]  # built from other arguments
    assert "deploy" not in cpu


def test_every_setting_is_an_option_of_the_server_and_no_key_is_in_the_image() -> None:
    options = {str(option.envvar) for option in sar_serve.params if option.envvar}
    settings = {*ENVIRONMENT, *SERVICES["gpu"]["environment"], *SETTINGS}
    assert {name for name in settings if name.startswith("SAR_")} <= options | {"SAR_API_KEY"}
    assert "SAR_API_KEY" not in ENVIRONMENT
    assert ENVIRONMENT["ORT_DISABLE_TELEMETRY"] == "1"


def test_the_context_is_what_the_wheel_is_built_from() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    allowed = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert [path for path in allowed if not (ROOT / path).exists()] == []
    needed = ["pyproject.toml", PROJECT["readme"], "exports/mini", "sar_infer", "sar_train", "scripts/hatch_bundle.py"]
    needed += [path.name for path in ROOT.iterdir() if any(fnmatch(path.name, p) for p in ("LICENSE*", "NOTICE"))]
    assert sorted(allowed) == sorted(needed)
    assert "sar_train/**/*.safetensors" in lines


def required(project: dict[str, Any], extra: str, platform: dict[str, str]) -> list[str]:
    """Return the names that the project and one of its extras ask for on a platform."""
    lines = map(Requirement, [*project["dependencies"], *project["optional-dependencies"].get(extra, [])])
    return [line.name.lower() for line in lines if not line.marker or line.marker.evaluate(platform)]


@pytest.mark.parametrize("platform", [LINUX, ARM], ids=["x86_64", "aarch64"])
def test_a_cpu_image_gets_the_plain_runtime_once_and_the_server(platform: dict[str, str]) -> None:
    """Of the wheel that the Dockerfile builds, after its edit of pyproject.toml."""
    (edit,) = re.findall(r"cpu\) sed -i '(.*?)' pyproject.toml", DOCKERFILE)
    _, old, new, _ = edit.split("/")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8").replace(old, new))["project"]
    names = required(project, "serve", platform)
    assert [name for name in names if "onnxruntime" in name] == ["onnxruntime"]
    assert {"uvicorn", "fastapi", "numpy", "pillow", "click"} <= {*names}


def test_a_cuda_image_gets_the_gpu_runtime_alone() -> None:
    names = required(PROJECT, "serve", LINUX) + required(PROJECT, "cuda", LINUX)
    assert {name for name in names if "onnxruntime" in name} == {"onnxruntime-gpu"}


@pytest.mark.parametrize("name", SERVICES)
def test_compose_is_as_closed_as_the_image_allows(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["volumes"][0].endswith(":/bundle:ro")
    # without a key there is no bank file: nothing could make it, and a missing one is an error
    environment = service["environment"]
    assert (environment.get("SAR_BANKS") or environment["SAR_BANK"].removeprefix("${SAR_API_KEY:+")).startswith(
        "/state"
    )
    assert "state:/state" in service["volumes"]


def test_kubernetes_gives_the_server_no_rights() -> None:
    assert POD["securityContext"]["runAsNonRoot"] is True
    rights = SERVER["securityContext"]
    assert (rights["allowPrivilegeEscalation"], rights["readOnlyRootFilesystem"]) == (False, True)
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert POD["automountServiceAccountToken"] is False
    assert POD["enableServiceLinks"] is False  # of a Service named sar-clip it would set SAR_CLIP_PORT and its like
    assert KUBERNETES["NetworkPolicy"]["spec"]["egress"] == []
    assert MOUNTS["/bundle"]["readOnly"] is True


def test_kubernetes_puts_the_bank_file_into_a_folder_of_its_own() -> None:
    folder, _, _ = SETTINGS["SAR_BANK"].rpartition("/")
    assert not MOUNTS[folder].keys() & {"subPath", "readOnly"}  # a file mounted alone could not be replaced
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    assert "persistentVolumeClaim" in volumes[MOUNTS[folder]["name"]]
    assert volumes.keys() == {mount["name"] for mount in MOUNTS.values()}


def test_kubernetes_gives_the_server_time_to_end_and_asks_it_for_the_right_health() -> None:
    assert POD["terminationGracePeriodSeconds"] > int(SETTINGS["SAR_NOTICE"]) + int(SETTINGS["SAR_DRAIN"])
    assert int(SERVICES["cpu"]["stop_grace_period"].removesuffix("s")) > 20
    paths = {kind: SERVER[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/healthz"}


def test_everything_in_kubernetes_means_the_same_pods() -> None:
    labels = KUBERNETES["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert KUBERNETES["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert KUBERNETES["Service"]["spec"]["selector"] == labels
    assert KUBERNETES["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert KUBERNETES["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels


def test_pip_settings_travel_as_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
