"""Operators who want different things at once: one action each, and what takes it back.

Every wish is answered with what is so, or with a reason why not, and every command that waits ends. Who is at
the backend that they are about has to move; nobody else notices.
"""

import asyncio
import signal
import subprocess
import sys
import urllib.error
from random import Random
from typing import Any

import pytest
import yaml

from tests.hostile.backends import chosen
from tests.hostile.operators import SOON, posted, reload
from tests.hostile.site import TIMEOUTS, Harm, Site
from tests.hostile.strangers import Action
from tests.hostile.transports import made_up
from tests.support.proxy_process import ROOT

ENDS = 50.0  # seconds for a command that waits for something
FORCED = 3  # seconds until a drain takes everybody away
OPERATORS = 3


async def commanded(site: Site, *words: str) -> tuple[int, str]:
    """How one of our commands ended, which it does in its time, and what it said of that."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", *words, "--admin", site.proxy.admin),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(ENDS):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode in {0, 1, 2}, (words, process.returncode, err)
    assert b"Traceback" not in err, err.decode()
    said = (out + err).decode().strip()
    assert said, (words, "ended without a word")
    site.tell(f"      {' '.join(words)} -> {process.returncode} {said}")
    return process.returncode, said


async def drained(site: Site, name: str) -> tuple[int, str]:
    """As `commanded`: it is drained, whatever the others are, and that is soon over."""
    return await commanded(site, "drain", name, "--force", "--wait", "--timeout", f"{FORCED}")


def without(site: Site, name: str) -> dict[str, Any]:
    """The configuration without one of its backends, which has to be empty at once."""
    others = [backend for backend in site.proxy.config["backends"] if backend["name"] != name]
    return site.proxy.config | {"backends": others, "timeouts": TIMEOUTS | {"drain": 1}}


async def removes_what_it_drains(site: Site, chance: Random) -> None:
    """Drains one, waits for that, and takes it out of the file: it goes, and whoever waits is told."""
    relay = chosen(site, chance, Harm.SESSIONS)
    path = f"/api/backends/{relay.name}"
    waiting = asyncio.create_task(drained(site, relay.name))
    try:
        await site.until(
            lambda: site.proxy.backends()[relay.name]["admin_state"] == "drain", SOON, "it drains"
        )
        await reload(site, without(site, relay.name), good=True)
        for button in ("ready", "maintenance"):  # there is nothing to be wished for any more
            code, answer = await site.asked(posted, site, f"{path}/{button}")
            assert code in {404, 409}, (button, code, answer)
            assert answer["detail"], answer
        await waiting
        await site.until(lambda: relay.name not in site.proxy.backends(), SOON, f"{relay.name} is gone")
    finally:
        await waiting
        await reload(site, site.proxy.config, good=True)
        state = (await site.asked(site.proxy.backends))[relay.name]["admin_state"]
        assert (await site.asked(posted, site, f"{path}/ready"))[0] == 200
    assert state == "drain", "it comes back as it was left"


async def presses_every_button(site: Site, chance: Random) -> None:
    """Several operators at once wish different things of one backend, and one file is read over another."""
    relay = chosen(site, chance, Harm.SESSIONS)
    path, session = f"/api/backends/{relay.name}", made_up()
    files = [yaml.safe_dump(file) for file in (site.proxy.config, without(site, relay.name))]

    async def writes(text: str) -> None:
        fresh = site.proxy.file.with_suffix(f".{chance.getrandbits(32)}")
        fresh.write_text(text)
        fresh.rename(site.proxy.file)  # whole at any moment

    async def press(chance: Random) -> None:
        for button in chance.sample(["drain", "ready", "maintenance", "file", "bad", "hup", "where"], 7):
            await asyncio.sleep(chance.random() / 5)  # the others press as well
            match button:
                case "file":
                    await writes(chance.choice(files))
                    code, _ = await site.asked(posted, site, "/api/reload")
                    assert code in {200, 409}
                case "bad":
                    await writes("listen: [")
                case "hup":
                    site.proxy.send(signal.SIGHUP)
                case "where":
                    await site.asked(asks_where, site, session)
                case _:
                    body = {"timeout": chance.choice([0, 1, 100])} if button == "drain" else None
                    code, answer = await site.asked(posted, site, f"{path}/{button}", body)
                    assert code in {200, 404, 409}, (button, code, answer)
                    assert code == 200 or answer["detail"], (button, code, answer)

    waiting = asyncio.create_task(drained(site, relay.name))
    try:
        await asyncio.gather(*(press(Random(chance.getrandbits(32))) for _ in range(OPERATORS)))
    finally:
        await reload(site, site.proxy.config, good=True)

        def is_ready() -> bool:
            posted(site, f"{path}/ready")
            found = site.proxy.backends().get(relay.name, {})
            return (found.get("admin_state"), found.get("leaving")) == ("ready", False)

        await site.until(is_ready, SOON, f"{relay.name} is ready")
        await waiting


def asks_where(site: Site, session: str) -> None:
    """Nobody knows of it."""
    with pytest.raises(urllib.error.HTTPError, match="404") as error:
        site.proxy.get(f"/api/where/{session}")
    error.value.close()


ACTIONS: list[Action] = [removes_what_it_drains, presses_every_button]
