"""A copy of compose.yaml that a test starts, for its own project, names and ports.

What is changed of the file: names of images and ports are the test's own, a key that old releases of Compose
do not know is left out, and so are services whose images are nowhere.
"""

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.engine import Engine
from tests.docs.pages import ROOT
from tests.support.processes import free_port
from tests.support.proxy_process import AdminListener
from tests.support.waiting import wait_until

HEALTHY = dict.fromkeys(("chat-a", "chat-b", "chat-c"), "healthy")
TOKEN = "a-token-of-the-test"
SECRET = "a-secret-of-the-test-that-is-long-enough"
# Compose 1 is a program of its own, Compose 2 and later one of the client's commands.
PROGRAMS = (["docker", "compose"], ["docker-compose"])


class Site(AdminListener):
    """The services of a copy of compose.yaml; owned by the fixture."""

    def __init__(self, engine: Engine, images: dict[str, str], folder: Path) -> None:
        self.engine = engine
        self.ports = {8000: free_port(), 9901: free_port(), 3000: free_port()}
        self.url, self.admin = (f"http://127.0.0.1:{self.ports[port]}" for port in (8000, 9901))
        self.project = f"proxytest{engine.run_id}"
        shutil.copytree(ROOT / "deploy", folder / "deploy")
        for path in (folder, *(folder / "deploy").rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        # What stands behind an anchor would be one object for all services that refer to it.
        site = json.loads(json.dumps(yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))))
        del site["name"]
        for name, service in list(site["services"].items()):
            if service["image"] not in images:
                del site["services"][name]
                continue
            service["image"] = images[service["image"]]
            service.pop("build", None)
            service.pop("pull_policy", None)
            service["labels"] = [engine.label]
            service["ports"] = [self._published(port) for port in service.get("ports", [])]
        for kind in ("networks", "volumes"):
            site[kind] = {name: {**value, "labels": [engine.label]} for name, value in site[kind].items()}
        self.services: dict[str, Any] = site["services"]
        # Compose 1 wants to be told the release of the format, before the keys of which it knows all.
        self._file = folder / "compose.yaml"
        self._file.write_text(yaml.safe_dump({"version": "2.4", **site}, sort_keys=False))
        self._program = next(words for words in PROGRAMS if self._knows(words))

    def _published(self, port: str) -> str:
        host, _, inner = port.rsplit(":", 2)
        return f"{host}:{self.ports[int(inner)]}:{inner}"

    def _knows(self, words: list[str]) -> bool:
        if not shutil.which(words[0]):
            return False
        return subprocess.run([*words, "version"], capture_output=True, check=False).returncode == 0

    def compose(self, *words: str) -> str:
        """What a command of Compose prints; it has to succeed."""
        done = subprocess.run(
            [*self._program, "-p", self.project, "-f", str(self._file), *words],
            cwd=self._file.parent,
            env=self.engine.environment
            | {"ADMIN_TOKEN": TOKEN, "CHAINLIT_AUTH_SECRET": SECRET, "HEALTH_SECRET": SECRET},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        return done.stdout

    def container(self, service: str) -> str:
        """The id of a service's container."""
        ours = ("--filter", f"label={self.engine.label}")
        by_name = ("--filter", f"label=com.docker.compose.service={service}")
        return self.engine("ps", "--all", "--quiet", *ours, *by_name)

    def state(self, service: str) -> dict[str, Any]:
        """What the engine tells of a service's container."""
        told = self.engine("inspect", "--format", "{{json .State}}", self.container(service))
        state: dict[str, Any] = json.loads(told)
        return state

    def get(self, path: str) -> str:
        """The body of an admin page, asked for with the token."""
        request = urllib.request.Request(f"{self.admin}{path}", headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=5) as response:
            return str(response.read().decode())

    def wait_well(self) -> None:
        """Every service runs, is healthy by its own check if it has one, and all chats by the proxy's."""
        for service in self.services:
            wait_until(partial(self._is_well, service), 90, partial(self.told, service))
        self.wait_health(HEALTHY, 60)

    def _is_well(self, service: str) -> bool:
        state = self.state(service)
        health = state.get("Health", {}).get("Status")  # empty in Podman where there is no check
        return bool(state["Running"] and (health or "healthy") == "healthy")

    def told(self, service: str) -> str:
        """A service's state and the end of its log, for a failing test."""
        return f"{self.state(service)}\n{self.compose('logs', '--tail', '40', service)}"

    def ask_prometheus(self, path: str, **query: str) -> Any:
        """The data of an answer of its API, asked by the proxy, which is on the same network."""
        url = f"http://prometheus:9090/api/v1/{path}?{urllib.parse.urlencode(query)}"
        program = f"import urllib.request as r; print(r.urlopen({url!r}, timeout=10).read().decode())"
        return json.loads(self.engine("exec", self.container("proxy"), "python", "-c", program))["data"]
