"""The proxy under test as a process of its own, with its configuration file and its admin listener."""

import asyncio
import contextlib
import http.client
import json
import os
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.instances import ChainlitInstance, http_status
from tests.support.processes import Process, free_port
from tests.support.waiting import wait_until

INTERNAL_ERRORS = "chainlit_proxy_internal_errors_total"
ROOT = Path(__file__).parents[2]
# Another program may be put in the proxy's place, to see which promises it does not keep.
COMMAND = shlex.split(os.environ.get("PROXY_UNDER_TEST", "")) or [sys.executable, "-m", "proxy"]
# Quick enough for a test; patient enough for two cores that run clients and instances too.
HEALTH = {"interval": 0.5, "timeout": 3, "fall": 3, "rise": 2}


def config_for(instances: Iterable[ChainlitInstance], **sections: Any) -> dict[str, Any]:
    """A configuration with these backends, named as their instances; sections replace the defaults."""
    return {
        "listen": f"127.0.0.1:{free_port()}",
        "admin": {"listen": f"127.0.0.1:{free_port()}"},
        "backends": [{"name": instance.name, "url": instance.url} for instance in instances],
        "health": HEALTH,
        **sections,
    }


class AdminListener:
    """The questions that the proxy's admin listener answers; `admin` is its URL."""

    admin: str

    def get(self, path: str) -> str:
        """The body of an admin page."""
        with urllib.request.urlopen(f"{self.admin}{path}", timeout=5) as response:
            return str(response.read().decode())

    def post(self, path: str, body: Any = None) -> Any:
        """Have the API do something; its answer."""
        data, headers = json.dumps(body or {}).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.admin}{path}", data, headers, method="POST")
        with urllib.request.urlopen(request, timeout=5) as response:
            return json.load(response)

    def backends(self) -> dict[str, dict[str, Any]]:
        """What `/api/backends` tells, by name; empty while the admin listener does not answer."""
        try:
            return {backend["name"]: backend for backend in json.loads(self.get("/api/backends"))}
        except (OSError, http.client.HTTPException):
            return {}

    def health(self) -> dict[str, str]:
        """The verdict on each backend."""
        return {name: str(backend["health"]) for name, backend in self.backends().items()}

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Every sample of `/metrics`, by name and labels."""
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.get("/metrics"))
            for sample in family.samples
        }

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name that carry these labels."""
        return sum(
            value
            for (sample, found), value in self.metrics().items()
            if sample == name and labels.items() <= dict(found).items()
        )

    def wait_health(self, expected: dict[str, str], within: float = 20) -> None:
        """Waits until the proxy judges the named backends so, as in `{"a": "healthy"}`."""
        wait_until(
            lambda: expected.items() <= self.health().items(),
            within,
            lambda: f"{expected}, but {self.health()}",
        )


class ProxyProcess(Process, AdminListener):
    """`python -m proxy serve -c FILE`; it keeps its ports over restarts."""

    def __init__(self, config: dict[str, Any], folder: Path, name: str = "proxy") -> None:
        self.config = config
        self.file = folder / f"{name}.yaml"
        self.url = f"http://{config['listen']}"
        self.admin = f"http://{config['admin']['listen']}"
        super().__init__(name, [*COMMAND, "serve", "-c", str(self.file)], folder / f"{name}.log", cwd=ROOT)

    def launch(self) -> None:
        """Writes the configuration as it is now, and starts the process."""
        self.file.write_text(yaml.safe_dump(self.config, sort_keys=False))
        super().launch()

    def start(self, timeout: float = 20) -> None:
        """Starts the process and waits until it takes sessions."""
        self.launch()
        self.wait_ready(timeout)

    def wait_ready(self, timeout: float = 20) -> None:
        """Waits until some backend takes sessions; AssertionError if the process ends first."""

        def ready() -> bool:
            assert self.running, f"{self.name} ended with {self.returncode}\n{self.tail()}"
            return http_status(f"{self.admin}/readyz") == 200

        wait_until(ready, timeout, lambda: f"{self.name} ready\n{self.tail()}")

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 20) -> int:
        """As Process; up to then the proxy has to have made no mistake."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            assert self.metric(INTERNAL_ERRORS) == 0, self.tail(200)
        return super().stop(number, timeout)

    def wait(self, timeout: float = 20) -> int:
        """As Process; nor may it have made one in leaving."""
        code = super().wait(timeout)
        if self.log.is_file():  # a pipe or a device of a test is not to be read
            assert "internal error (" not in self.log.read_text(errors="replace"), self.tail(200)
        return code


MakeProxy = Callable[..., ProxyProcess]
"""What the fixture `make_proxy` hands out: `make_proxy("ab", health={...})` starts a proxy."""


async def command(proxy: AdminListener, *words: str) -> dict[str, Any]:
    """What a command of ours says, asked for JSON; it has to end well."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", *words, "--json", "--admin", proxy.admin),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    result: dict[str, Any] = json.loads(out)
    return result
