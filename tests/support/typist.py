"""Does what a page tells its reader to do: its commands in a shell, its files where they are named.

Only the ports are changed, wherever they stand, so that the pages of several runs do not meet.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT, Piece, pieces
from tests.support.processes import Process, free_port

SHELL_TIME = 60.0
_LASTING = re.compile(r"(?:[A-Z_]+=\S+ )*(?:chainlit run|uvicorn|chainlit-proxy (?:run|serve|replica)) ")
_PORTS = re.compile(r"\b(?:8000|8001|8002|9901)\b")


class Typist:
    """One reader in a folder of its own, with a shell whose PATH begins with this environment's programs."""

    def __init__(self, folder: Path, page: str, heading: str = "", **env: str) -> None:
        """`heading`: only what stands below it and before the next of its kind."""
        self.folder = folder
        self.blocks = _below(ROOT / "docs" / page, heading)
        self.ports = {number: free_port() for number in ("8000", "8001", "8002", "9901")}
        self.url, self.admin = (f"http://127.0.0.1:{self.ports[port]}" for port in ("8000", "9901"))
        self.env = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "CHAINLIT_PROXY_ADMIN": self.admin,
            "PYTHONPATH": str(ROOT),
            **env,
        }
        self.shell_time = SHELL_TIME
        self.running: list[Process] = []

    def text(self, kind: str, number: int = 0) -> str:
        """A block of a language, with this reader's ports."""
        return self.own([block for block in self.blocks if block.kind == kind][number].text)

    def own(self, text: str) -> str:
        """A text with this reader's ports."""
        return _PORTS.sub(lambda match: str(self.ports[match[0]]), text)

    def commands(self) -> list[str]:
        """The lines of all shell blocks."""
        return [
            line
            for block in self.blocks
            if block.kind == "sh"
            for line in self.own(block.text).splitlines()
            if line.strip() and not line.startswith("#")
        ]

    def type(self, line: str, **env: str) -> str:
        """Runs a command; what it prints. One that goes on by itself is started, and stopped by `end`."""
        if _LASTING.match(line):
            name = f"command{len(self.running)}"
            process = Process(
                name,
                ["bash", "-c", f"exec env {line}"],
                self.folder / f"{name}.log",
                env=self.env | env,
                cwd=self.folder,
            )
            process.launch()
            self.running.append(process)
            return ""
        done = subprocess.run(
            ["bash", "-ec", line],
            cwd=self.folder,
            env=os.environ | self.env | env,
            capture_output=True,
            text=True,
            timeout=self.shell_time,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def save(self, name: str, text: str) -> None:
        """Writes a file that the page shows."""
        (self.folder / name).write_text(text, encoding="utf-8")

    def tails(self) -> str:
        """The ends of all logs."""
        return "\n".join(process.tail() for process in self.running)

    def end(self) -> None:
        """Ends what still runs."""
        for process in reversed(self.running):
            process.kill9()


def _below(page: Path, heading: str) -> list[Piece]:
    found, inside = [], not heading
    for piece in pieces(page):
        if piece.kind == "heading" and heading:
            inside = piece.text == heading
        elif inside:
            found.append(piece)
    assert found, f"{page.name} has nothing below {heading!r}"
    return found
