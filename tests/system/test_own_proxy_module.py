"""An app that has a module `proxy` of its own, and imports `chainlit_proxy`, however it is started."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.support.clients import Clients
from tests.support.proxy_process import ROOT
from tests.support.sharing import PLAIN_RUN, Instance, RunSharing
from tests.system.test_sessions_elsewhere import Site, kill_home, opened

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

# As the command `chainlit-proxy`, with the app's folder first on its import path.
COMMAND = [sys.executable, "-m", "chainlit_proxy"]
USES_ITS_OWN = "import proxy\nassert proxy.NAME == 'the app'\n"
HEALTH = {"interval": 0.5, "timeout": 1, "fall": 2, "rise": 1, "evict_after": 2}


def own(folder: Path, module: str) -> None:
    """Give the app in a folder its module, which it needs."""
    (folder / module).parent.mkdir(exist_ok=True)
    (folder / module).write_text("NAME = 'the app'")
    app = folder / "app.py"
    app.write_text(USES_ITS_OWN + app.read_text())


@pytest.mark.parametrize("module", ["proxy.py", "proxy/__init__.py"])
def test_under_run(tmp_path: Path, module: str) -> None:
    """`register_codec` and `on_restore` reach who shares, and the app finds its own module."""
    run = RunSharing(tmp_path, 2, env={"CODEC": str(ROOT)})
    run.command[:3] = COMMAND
    own(tmp_path, module)

    async def scenario() -> None:
        async with Clients(run.url) as clients:
            (talk,) = await opened(clients)
            await talk.turn()
            await run.kill(str(talk.chat.home))
            after = await talk.turn()
            assert (after.fields["tally"], after.fields["client"]) == ("7", "made-anew")

    try:
        run.start()
        asyncio.run(scenario())
    finally:
        run.end()
        print(run.tail(100))


@pytest.mark.parametrize("module", ["proxy.py", "proxy/__init__.py"])
@pytest.mark.parametrize("plain", [False, True], ids=["replica", "chainlit run"])
def test_elsewhere(tmp_path: Path, module: str, plain: bool) -> None:
    """The same with `replica`, and under plain `chainlit run` with `share` in the app."""
    store = f"sqlite://{tmp_path}/sessions.db"
    environment = {"CODEC": str(ROOT)} | ({"SHARE": store, "SHARE_FROM": str(ROOT)} if plain else {})
    command = PLAIN_RUN if plain else [*COMMAND, "replica", "app.py", "--sessions", store, "--"]
    instances = [Instance(name, tmp_path, "", command=command, env=environment) for name in "ab"]
    for instance in instances:
        own(instance.root, module)
    site = Site(tmp_path, instances, health=HEALTH)

    async def scenario() -> None:
        async with Clients(site.url) as clients:
            (talk,) = await opened(clients)
            await talk.turn()
            await kill_home(site, talk)
            after = await talk.turn()
            assert (after.fields["tally"], after.fields["client"]) == ("7", "made-anew")

    try:
        asyncio.run(scenario())
    finally:
        site.end()
