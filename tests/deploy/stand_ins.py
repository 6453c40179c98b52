"""Images of others: those that the engine has or can get, else ones of Debian's packages in their place.

What stands in has the programs and the users of the original, as far as our files use them. There is none for
Grafana, which Debian does not have: `GRAFANA` is left out where it cannot be pulled.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.deploy.engine import Engine

PYTHON = "python:3.11-slim"
VALKEY = "valkey/valkey:8-alpine"
PROMETHEUS = "prom/prometheus:v3.5.0"
GRAFANA = "grafana/grafana:12.1.1"
SUITE, MIRROR = "bookworm", "http://deb.debian.org/debian"
# The last are the headers, which the original has too: those who compile want them.
BASE = "python3,python3-venv,python3-pip,ca-certificates,python3-dev"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_INSTALL = (
    "RUN apt-get update && apt-get install --yes --no-install-recommends {} && rm -rf /var/lib/apt/lists/*\n"
)
# With the program that it was a fork of; as in the original, others than its own machine may connect.
OF_VALKEY = (
    "FROM {base}\n"
    + _INSTALL.format("redis-server")
    + r"""RUN printf '#!/bin/sh\nexec redis-server --protected-mode no "$@"\n' > /usr/bin/valkey-server \
 && chmod 755 /usr/bin/valkey-server && ln -s redis-cli /usr/bin/valkey-cli \
"""
    " && mkdir /data && chown 999:1000 /data\n"
    "WORKDIR /data\nVOLUME /data\n"
)
OF_PROMETHEUS = (
    "FROM {base}\n"
    + _INSTALL.format("prometheus")
    + "RUN mkdir /prometheus && chown nobody:nogroup /prometheus\nUSER nobody\nVOLUME /prometheus\n"
    'ENTRYPOINT ["/usr/bin/prometheus"]\n'
)
# Debian's, with systemd as the first process.
OF_SYSTEMD = (
    "FROM {proxy} AS proxy\nFROM {base}\n"
    + _INSTALL.format("systemd dbus curl")
    + "COPY --from=proxy /opt/chainlit-proxy /opt/chainlit-proxy\n"
    "RUN mkdir /etc/chainlit-proxy\n"
    'CMD ["/lib/systemd/systemd"]\n'
)


def have(engine: Engine, image: str) -> bool:
    """Whether the engine has an image, or gets it from its registry."""
    return engine.has(image) or engine.call("pull", "--quiet", image, seconds=600.0).returncode == 0


def python(engine: Engine) -> str:
    """The base of our images; FileNotFoundError if it is nowhere and cannot be made."""
    if have(engine, PYTHON):
        return PYTHON
    if shutil.which("debootstrap") is None:
        raise FileNotFoundError(f"no image {PYTHON}: install Debian's package debootstrap to have one made")
    engine.owns(PYTHON)
    with tempfile.TemporaryDirectory(prefix="chainlit-proxy-base-") as folder:
        root = Path(folder, "root")
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={BASE}", SUITE, str(root), MIRROR],
            stdout=subprocess.DEVNULL,
            timeout=1200,
            check=True,
        )
        (root / "usr/bin/python").symlink_to("python3")
        for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            marker.unlink()
        for kept in ("var/cache/apt/archives/*.deb", "var/lib/apt/lists/*_*"):
            for file in root.glob(kept):
                file.unlink()
        # As the original, whose library has no bytecode.
        for folder_of_bytecode in list(root.glob("usr/lib/python3*/**/__pycache__")):
            shutil.rmtree(folder_of_bytecode)
        if CERTIFICATES.exists():
            shutil.copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
        archive = Path(folder, "root.tar")
        subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], timeout=600, check=True)
        engine("import", "--change", 'CMD ["python3"]', str(archive), PYTHON, seconds=600.0)
    return PYTHON


def other(engine: Engine, image: str, steps: str) -> str:
    """An image of others: itself, or what stands in for it; its name here."""
    if have(engine, image):
        return image
    return engine.build(
        image.rpartition("/")[2].partition(":")[0], dockerfile=steps.format(base=python(engine))
    )
