"""The processes of a soak, and what is read of the proxy's: its memory and its descriptors."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.processes import Process, free_port
from tests.support.proxy_process import ROOT, ProxyProcess

MIB = 1 << 20
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Program(Process):
    """`python -m MODULE ARGUMENTS` of this folder; what it prints is its log."""

    def __init__(self, folder: Path, name: str, module: str, *arguments: object) -> None:
        command = [sys.executable, "-m", f"tests.soak.{module}", *map(str, arguments)]
        super().__init__(name, command, folder / f"{name}.log", cwd=ROOT)

    @property
    def said(self) -> list[str]:
        """The lines it has printed."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def report(self, within: float) -> dict[str, Any]:
        """Its last line, once it has ended well."""
        code = self.wait(within)
        assert code == 0, self.tail()
        report = json.loads(self.said[-1])
        assert isinstance(report, dict)
        return report


class Instance(Program):
    """A stand-in for a Chainlit instance that keeps its port."""

    def __init__(self, folder: Path, name: str, module: str) -> None:
        self.port = free_port()
        super().__init__(folder, name, module, name, self.port)


def memory(process: Process) -> int:
    """Bytes of the process that are in memory."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * _PAGE


def descriptors(process: Process) -> int:
    """How many a process has open."""
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


@contextmanager
def proxy_before(folder: Path, instances: list[Instance], **sections: Any) -> Iterator[ProxyProcess]:
    """A proxy and its instances, running; all are ended afterwards."""
    config = {
        "listen": f"127.0.0.1:{free_port()}",
        "admin": {"listen": f"127.0.0.1:{free_port()}"},
        "backends": [{"name": i.name, "url": f"http://127.0.0.1:{i.port}"} for i in instances],
        "log": {"access": False},
        **sections,
    }
    proxy = ProxyProcess(config, folder, "proxy")
    try:
        for instance in instances:
            instance.launch()
        proxy.start()
        proxy.wait_health({instance.name: "healthy" for instance in instances})
        yield proxy
    finally:
        proxy.kill9()
        for instance in instances:
            instance.kill9()


def port_of(proxy: ProxyProcess) -> int:
    """Where its clients connect."""
    return int(proxy.config["listen"].rpartition(":")[2])
