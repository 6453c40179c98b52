"""Operators of `run` who press every button at the wrong moment.

A *button* is one thing that an operator can ask for, by the API, by a command or by a signal. Each is
answered in its time, with what is so or with a reason why not. `Panel` is what they are pressed at: the
command with two replicas, whose conversations go on meanwhile.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Self, TypeVar

import yaml

from tests.hostile.talks import Talks
from tests.support.clients import Clients
from tests.support.processes import alive
from tests.support.proxy_process import INTERNAL_ERRORS, ROOT
from tests.support.sharing import START, RunSharing

T = TypeVar("T")
REPLICAS = 2
DRAIN = 3.0  # seconds that a drain may take: less than some answers need
PAUSE = 0.05  # seconds between two questions
DELAY = 0.3  # seconds until a client connects anew
ENDS = 120.0  # seconds for a command, whatever is pressed meanwhile
OVER = {"idle", "done", "failed"}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command of ours ended."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str


class Panel:
    """The command and its conversations; `async with Panel(folder, seed)`."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.seed = seed
        self.sections: dict[str, Any] = {
            "timeouts": {"drain": DRAIN},
            "health": {"interval": 0.5, "timeout": 2, "fall": 3, "rise": 1},
        }
        self.run = RunSharing(folder, REPLICAS, **self.sections)
        self.file = folder / "run.yaml"
        self.good = self.file.read_text()
        self.journal = self.run.journal
        self.story: list[str] = []  # what was done, for whoever reads of a failure
        self.began = time.monotonic()
        self.talks: Talks
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._stack.callback(self.run.end)
        self.run.launch()
        await self.until(self.run.all_healthy, "all replicas healthy")
        clients = await self._stack.enter_async_context(Clients(self.run.url, DELAY))
        self.talks = await self._stack.enter_async_context(Talks(self, clients, self.seed))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def tell(self, text: str) -> None:
        """Write down what happens."""
        self.story.append(f"{time.monotonic() - self.began:6.1f} {text}")

    async def until(self, question: Callable[[], T], what: str, within: float = START) -> T:
        """Ask in a thread until the answer is true."""
        deadline = time.monotonic() + within
        while not (answer := await asyncio.to_thread(question)):
            assert time.monotonic() < deadline, f"not within {within:g} s: {what}"
            await asyncio.sleep(PAUSE)
        return answer

    def write(self, text: str) -> None:
        """Put another file in the place of the one that is read, whole at any moment."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self.file)

    def rollout(self) -> dict[str, Any]:
        """How far the newest rollout is."""
        state: dict[str, Any] = json.loads(self.run.get("/api/rollout"))
        return state

    def post(self, path: str, body: Any = None) -> tuple[int, Any]:
        """The status and the answer of what the API is asked to do."""
        try:
            return 200, self.run.post(path, body)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"null")

    async def pressed(self, path: str, body: Any = None, *expected: int) -> int:
        """Press it by the API: it is answered as may be."""
        code, answer = await asyncio.to_thread(self.post, path, body)
        said = answer.get("detail") or answer.get("problems") or "" if isinstance(answer, dict) else answer
        self.tell(f"      {path} {json.dumps(body) if body else ''} -> {code} {said}")
        assert code in expected, f"{path} was answered {code}: {answer}"
        assert code < 400 or said, f"{path} was refused without a reason: {answer}"
        return code

    async def command(self, *words: str) -> Ended:
        """One of our commands to its end, which comes, and has a reason if it is no good one."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy", *words, "--admin", self.run.admin),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(ENDS):
                out, err = await process.communicate()
        except TimeoutError:
            raise AssertionError(f"{' '.join(words)} did not end: {self.rollout()}") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        ended = Ended(words, process.returncode or 0, out.decode(), err.decode())
        self.tell(f"      {' '.join(words)} -> {ended.code} {ended.out}{ended.err}".rstrip())
        assert "Traceback" not in ended.err, ended
        assert ended.code in {0, 1, 2}, ended
        assert ended.code == 0 or ended.err.strip(), ended
        return ended

    async def phase(self, *phases: str) -> dict[str, Any]:
        """Wait until a rollout is at one of these, or over; how it stands."""

        def there() -> dict[str, Any]:
            state = self.rollout()
            return state if state["phase"] in phases or state["state"] in OVER else {}

        return await self.until(there, f"a rollout at {phases}", ENDS)

    async def calm(self) -> None:
        """Take back whatever was pressed, and wait until all is as it was."""
        self.write(self.good)
        await self.until(lambda: self.rollout()["state"] in OVER, "no rollout", ENDS)
        await self.pressed("/api/reload", None, 200)
        for name in await asyncio.to_thread(self.run.backends):
            await self.pressed(f"/api/backends/{name}/ready", None, 200, 404, 409)  # a surplus may just leave

        def is_calm() -> bool:
            assert self.run.running, "the command has ended"
            found = self.run.backends().values()
            return len(found) >= REPLICAS and all(
                (one["health"], one["admin_state"]) == ("healthy", "ready") for one in found
            )

        await self.until(is_calm, "all healthy and ready")

    async def check(self) -> None:
        """The command has made no mistake."""
        assert await asyncio.to_thread(self.run.metric, INTERNAL_ERRORS) == 0, "an internal error"
        text = self.run.log.read_text(errors="replace")
        assert "internal error (" not in text
        assert "sharing a session failed" not in text

    async def end_twice(self, chance: Random) -> None:
        """SIGTERM, and again while it leaves: it ends, and nobody is left behind."""
        await asyncio.to_thread(self.run.pids)
        self.run.send(signal.SIGTERM)
        await asyncio.sleep(chance.random())  # somewhere in the middle
        self.run.send(signal.SIGTERM)
        code = await asyncio.to_thread(self.run.wait, 40)
        self.tell(f"      ended with {code}")
        await self.until(lambda: not any(map(alive, self.run.seen)), f"none of {self.run.seen} is left", 10)
        text = self.run.log.read_text(errors="replace")
        assert "internal error (" not in text
        assert "Traceback" not in text


Button = Callable[[Panel, Random], Awaitable[object]]


def _names(panel: Panel) -> list[str]:
    return sorted(panel.run.backends())


async def _some(panel: Panel, chance: Random) -> str:
    """One of the backends of this moment, which may be gone in the next."""
    names = await asyncio.to_thread(_names, panel)
    return chance.choice(names or ["replica-1"])


async def drain(panel: Panel, chance: Random) -> None:
    """Drains some backend."""
    name = await _some(panel, chance)
    await panel.pressed(
        f"/api/backends/{name}/drain", {"timeout": chance.choice([0, 1, DRAIN])}, 200, 404, 409
    )


async def drain_and_wait(panel: Panel, chance: Random) -> None:
    """The same by the command, to its end."""
    await panel.command("drain", await _some(panel, chance), "--wait", "--timeout", f"{DRAIN:g}")


async def ready(panel: Panel, chance: Random) -> None:
    """Sets some backend to ready."""
    await panel.pressed(f"/api/backends/{await _some(panel, chance)}/ready", None, 200, 404, 409)


async def maintain(panel: Panel, chance: Random) -> None:
    """Takes some backend out."""
    await panel.pressed(f"/api/backends/{await _some(panel, chance)}/maintenance", None, 200, 404, 409)


async def roll_out(panel: Panel, chance: Random) -> None:
    """Begins a rollout, or is told that there is one."""
    await panel.pressed("/api/rollout", {"timeout": DRAIN}, 200, 202, 409)


async def roll_out_and_wait(panel: Panel, chance: Random) -> Ended:
    """The same by the command, to its end."""
    return await panel.command("rollout", "--wait", "--timeout", f"{DRAIN:g}")


async def reload_good(panel: Panel, chance: Random) -> None:
    """Reads another good file."""
    changed = yaml.safe_load(panel.good) | {"balance": {"bound": 1.1 + chance.random()}}
    panel.write(yaml.safe_dump(changed))
    await panel.pressed("/api/reload", None, 200, 409)  # another operator may write just now


async def reload_bad(panel: Panel, chance: Random) -> None:
    """Reads a file with a mistake; what was in effect stays."""
    mistakes = ["helth: 1\n", "listen: [\n", "backends: [{name: a, url: 'http://127.0.0.1:1'}]\n"]
    panel.write(chance.choice(mistakes))
    await panel.pressed("/api/reload", None, 200, 409)


async def hang_up(panel: Panel, chance: Random) -> None:
    """SIGHUP, which reads the file and begins a rollout, if none is running."""
    panel.run.send(signal.SIGHUP)


async def where(panel: Panel, chance: Random) -> None:
    """Asks where somebody is."""
    session = chance.choice(panel.talks.talks).chat.session
    ended = await panel.command("where", chance.choice([session, session[:8], "nobody-has-this"]))
    assert ended.code in {0, 1, 2}


async def look(panel: Panel, chance: Random) -> None:
    """Looks at everything."""
    for path in ("/api/overview", "/api/backends", "/api/events", "/api/sessions", "/metrics", "/readyz"):
        with contextlib.suppress(urllib.error.HTTPError):  # while nobody takes sessions it is not ready
            await asyncio.to_thread(panel.run.get, path)


async def kill(panel: Panel, chance: Random) -> None:
    """Kills the process of some backend."""
    found = (await asyncio.to_thread(panel.run.backends)).values()
    if pids := [one["pid"] for one in found if one["pid"]]:
        pid = chance.choice(sorted(pids))
        panel.tell(f"      kill {pid}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def freeze(panel: Panel, chance: Random) -> None:
    """Stops the process of some backend for a moment."""
    found = (await asyncio.to_thread(panel.run.backends)).values()
    if pids := [one["pid"] for one in found if one["pid"]]:
        pid = chance.choice(sorted(pids))
        panel.tell(f"      freeze {pid}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(chance.uniform(0.1, 2))  # this is the event
            os.kill(pid, signal.SIGCONT)


BUTTONS: list[Button] = [
    drain, drain_and_wait, ready, maintain, roll_out, reload_good, reload_bad, hang_up, where, look, kill,
    freeze,
]  # fmt: skip
