"""What pip is told on this machine, in the form in which a build can be told the same."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

PIP_SETTINGS = ("cert", "constraint", "default-timeout", "extra-index-url", "find-links", "index-url", "no-index",
                "proxy", "retries", "timeout", "trusted-host")  # fmt: skip
CERTIFICATES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def pip_settings(scratch: Path) -> tuple[dict[str, Path], Path | None]:
    """What pip is told on this machine, as build secrets, and its first folder of wheels.

    Files that a setting names become secrets themselves; the folder of wheels is seen at /mnt.
    """
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    settings: dict[str, str] = {}
    for line in sorted(done.stdout.splitlines(), key=lambda line: line.startswith(":env:")):
        key, _, value = line.partition("=")
        if key.rpartition(".")[2] in PIP_SETTINGS:
            settings[key.rpartition(".")[2]] = str(ast.literal_eval(value))
    certificate = next((os.environ[name] for name in CERTIFICATES if os.environ.get(name)), None)
    if certificate and Path(certificate).is_file():
        settings.setdefault("cert", certificate)
    secrets = {}
    for key, name in (("cert", "ca.pem"), ("constraint", "constraints.txt")):
        if key in settings and Path(settings[key]).is_file():
            secrets[name] = Path(settings[key])
            settings[key] = f"/run/secrets/{name}"
    wheels = next((Path(part) for part in settings.pop("find-links", "").split() if Path(part).is_dir()), None)
    if wheels:
        settings["find-links"] = "/mnt"
    if settings:
        secrets["pip.conf"] = scratch / "pip.conf"
        secrets["pip.conf"].touch(0o600)
        secrets["pip.conf"].write_text("\n".join(["[global]", *(f"{k} = {v}" for k, v in settings.items()), ""]))
    return secrets, wheels
