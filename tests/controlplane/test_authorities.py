"""What an authority is told and what not: accounts that are bound, and one that is not who it should be."""

import asyncio
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from proxy import tls
from proxy.config import dump
from proxy.config.tls_settings import AcmeSettings
from proxy.controlplane.certificate_store import CertificateStore
from proxy.controlplane.renewals import Renewals
from tests.support.https_site import WITHIN, HttpsSite
from tests.support.pebble_server import Pebble
from tests.support.processes import free_port
from tests.support.waiting import eventually

MAC = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"


@pytest.fixture
def binding(tmp_path: Path) -> Iterator[Pebble]:
    """An authority that wants accounts bound to those that it knows."""
    folder = tmp_path / "binding"
    folder.mkdir()
    rules: dict[str, Any] = {"externalAccountBindingRequired": True, "externalAccountMACKeys": {"kid-1": MAC}}
    authority = Pebble(folder, free_port(), **rules)
    authority.start()
    yield authority
    authority.end()


def test_a_bound_account(binding: Pebble, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With the key of `eab` an account is made, without it is refused; the key is in no log, file or dump."""
    caplog.set_level(logging.DEBUG)
    plain, state = _proof_port(binding), tmp_path / "state"

    async def test() -> None:
        async with HttpsSite(binding, state, plain, free_port()) as site:
            site.serving.set()
            await site.until(lambda: site.counts == (0, 1))
        eab = {"kid": "kid-1", "key": MAC}
        async with HttpsSite(binding, state, plain, free_port(), eab=eab) as site:
            site.serving.set()
            await site.until(lambda: site.counts == (1, 0))
            assert MAC not in dump(site.config) + repr(site.config)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test())
    assert MAC not in caplog.text
    assert "PRIVATE KEY" not in caplog.text
    assert not [path for path in state.rglob("*") if path.is_file() and MAC.encode() in path.read_bytes()]


def _proof_port(pebble: Pebble) -> int:
    return int(json.loads(Path(pebble.command[2]).read_text())["pebble"]["httpPort"])


def test_the_authority_is_asked_over_tls_that_verifies(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An authority whose own certificate is not trusted is told no name and no key."""

    async def test() -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        untrusted = CertificateStore(
            AcmeSettings.model_validate({"domains": ["a.test"], "folder": str(tmp_path / "other")})
        )
        untrusted.prepare()
        context = tls.server_context(str(untrusted.pair), str(untrusted.pair))
        heard: list[bytes] = []

        async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.read(1))
            writer.close()

        server = await asyncio.start_server(hear, sock=listening, ssl=context)
        settings = {
            "domains": ["a.test"],
            "folder": str(tmp_path / "s"),
            "directory": f"https://127.0.0.1:{port}/d",
        }
        renewals = Renewals()
        renewals.configure(AcmeSettings.model_validate(settings))
        assert renewals._store is not None
        renewals._store.prepare()
        serving = asyncio.Event()
        serving.set()
        task = asyncio.create_task(renewals.run(serving))
        await eventually(lambda: sum(renewals.counts.values()), WITHIN, repr(renewals))
        task.cancel()
        await asyncio.wait([task])
        server.close()
        await server.wait_closed()
        assert heard in ([], [b""])
        assert "the authority cannot be reached: " in caplog.text
        assert "CERTIFICATE_VERIFY_FAILED" in caplog.text

    asyncio.run(test())
