"""Shared sessions with other releases of Chainlit: the oldest in full, all of them by `make compat`."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from proxy.replicas import LAUNCHER, SHARING
from tests.support.clients import Clients
from tests.support.link import Driver, Identity, Kind, Transports
from tests.support.older_chainlit import RELEASES, newer, python_with
from tests.support.sharing import Conversation, Instance
from tests.support.size import IN_FULL
from tests.system.test_sessions_elsewhere import MakeSite, kill_home, make_site

__all__ = ["make_site"]
pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

TRIED = [*RELEASES, *newer()] if os.environ.get("COMPAT") == "all" else RELEASES[: int(IN_FULL)]
# Before 2.5.5 a page announces nothing.
PAGES = [Kind(Driver.PYTHON, Transports.BOTH, Identity.BARE), Kind(Driver.JS, Transports.BOTH, Identity.BARE)]


@pytest.mark.parametrize("release", TRIED)
def test_another_chainlit_shares_its_sessions(make_site: MakeSite, tmp_path: Path, release: str) -> None:
    """Killed between turns and inside one, with files and figures: all is there, and the user is told."""
    told = json.dumps({"store": f"sqlite://{tmp_path}/sessions.db"})
    command = [str(python_with(release)), "-P", str(LAUNCHER), "--state", "state", "run", "app.py"]
    site = make_site("", command=command, env=lambda _: {SHARING: told})

    async def version(instance: Instance) -> str:
        code = "import importlib.metadata as m; print(m.version('chainlit'))"
        process = await asyncio.create_subprocess_exec(
            instance.command[0], "-c", code, stdout=asyncio.subprocess.PIPE
        )
        return (await process.communicate())[0].decode().strip()

    async def scenario() -> None:
        assert await version(site.instances["a"]) == release
        async with Clients(site.url) as clients:
            for kind in PAGES:
                talk = Conversation(await clients.chat(kind))
                await talk.open()
                key = await talk.chat.upload("notes")
                await talk.turn(files=(key,))
                await talk.turn("stream 5 0.01")
                asked = await talk.turn("figures")
                greeted = talk.chat.home
                await kill_home(site, talk)
                reply = await talk.turn(files=(key,))
                assert reply.fields["read"] == "notes"
                assert reply.fields["asked"] == asked.nonce
                assert reply.fields["elements"] == "dataframe+file+plotly"
                assert await talk.chat.fetch() == f"greeting of {greeted}"
                site.heal()
                begun = asyncio.Event()
                cut = asyncio.create_task(talk.cut(begun))
                await begun.wait()
                site.home(talk).kill9()
                await cut
                await talk.turn()
                assert talk.notices == 1
                talk.check_starts(site.journal)
                site.heal()

    asyncio.run(scenario())
