"""A reload that breaks is refused: the process goes on, and the old configuration stays whole."""

import asyncio
import socket
import stat
from pathlib import Path

import pytest

from proxy.affinity.health import Observation
from proxy.app import App
from proxy.config import Config, loads
from proxy.exposition import render
from tests.support.processes import free_port

OLD = "listen: 127.0.0.1:{port}\nadmin: {{listen: 127.0.0.1:0}}\nbackends: [{{name: a, url: 'http://127.0.0.1:1'}}]\n"
NEW = """\
listen: [127.0.0.1:{port}, 127.0.0.1:{other}]
admin: {{listen: 127.0.0.1:0}}
backends: [{{name: b, url: 'http://127.0.0.1:1'}}]
balance: {{bound: 1.5}}
timeouts: {{drain: 7}}
log: {{level: debug}}
"""


class Broken:
    """What takes the place of a part of a configuration, so that to apply it fails."""


def answers(port: int) -> bool:
    """Whether connections to a port are taken."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


async def reload(app: App) -> None:
    """Reload; it has to be refused, and counted."""
    refused = app.parts.reload_counts.refused
    done = await app.reloads.reload()
    assert not done.applied
    assert len(done.problems) == 1
    assert app.parts.reload_counts.refused == refused + 1
    assert app.reloads.last is done
    assert 'chainlit_proxy_reloads_total{result="refused"}' in render(
        app.parts.collector.collect(), openmetrics=False
    )


@pytest.mark.parametrize(
    "error", [RuntimeError("one\ntwo"), OSError(5, "x"), UnicodeError(), RecursionError()]
)
def test_a_file_that_cannot_be_read_by_a_mistake_of_ours(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the reading meets, the reload is refused with one line, and the log has the traceback."""

    def read() -> Config:
        raise error

    async def scenario() -> None:
        app = App(loads(OLD.format(port=free_port())), read)
        await reload(app)
        assert app.reloads.last is not None
        assert type(error).__name__ in app.reloads.last.problems[0]
        assert "Traceback" in caplog.text

    asyncio.run(scenario())


def test_a_proxy_that_is_about_to_end_reads_nothing() -> None:
    """Told to end, it opens no listener any more: the reload is refused with that reason."""

    async def scenario() -> None:
        app = App(loads(OLD.format(port=free_port())), lambda: pytest.fail("it is read"))
        app.reloads.stop()
        await reload(app)
        assert app.reloads.last is not None
        assert app.reloads.last.problems == ("the proxy is about to end",)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "key", ["balance", "affinity", "health", "timeouts", "limits", "responses", "discovery"]
)
def test_a_switch_that_breaks_in_the_middle(key: str) -> None:
    """Where a step fails everything is as before: backends, listeners, settings; and a good file is taken."""
    port, other = free_port(), free_port()
    good = loads(NEW.format(port=port, other=other))
    read = [good.model_copy(update={key: Broken()}), good]

    async def scenario() -> None:
        app = App(loads(OLD.format(port=port)), lambda: read.pop(0))
        old = app.config
        app.bind()
        sockets = list(app.ports.bound.clients.values())
        await app.parts.plane.listeners.open(sockets, 1024, None, greeted=False)
        tasks = asyncio.create_task(app.parts.membership.run())
        backend = app.parts.fleet.get("a")
        assert backend is not None
        app.parts.fleet.observe(backend, Observation.ANSWERED, 0)
        await reload(app)
        assert app.config is old
        assert app.parts.plane.site.config is old
        assert app.parts.plane.site.timeouts is old.timeouts
        assert app.parts.drains.patience == old.timeouts.drain
        assert app.parts.router.placement.bound == old.balance.bound
        assert app.parts.fleet.get("a") is backend
        assert backend.takes_sessions
        staying = [each.name for each in app.parts.fleet if not each.leaving]
        assert staying == ["a"]
        assert answers(port)
        assert not answers(other)
        assert (await app.reloads.reload()).applied
        assert answers(port)
        assert answers(other)
        tasks.cancel()
        app.parts.plane.listeners.close()
        app.ports.close()
        await asyncio.wait([tasks])

    asyncio.run(scenario())


def test_who_may_connect_to_a_socket_file(tmp_path: Path) -> None:
    """All to those of clients and only the proxy's user to the admin's; a reload changes both, or none."""
    files = tmp_path / "chat.sock", tmp_path / "admin.sock"
    text = f"listen: unix:{files[0]}\nadmin:\n  listen: unix:{files[1]}\n"
    read = [
        loads(text + "  socket: {mode: '640'}\nsocket: {mode: '660'}\n"),
        loads(text + "  socket: {mode: '644'}\nsocket: {mode: '666', group: no-such-group}\n"),
        loads(text + "  socket: {mode: '644', group: no-such-group}\nsocket: {mode: '666'}\n"),
    ]

    def modes() -> list[str]:
        return [f"{stat.S_IMODE(file.stat().st_mode):o}" for file in files]

    async def scenario() -> None:
        app = App(loads(text), lambda: read.pop(0))
        app.bind()
        assert modes() == ["666", "600"]
        sockets = list(app.ports.bound.clients.values())
        await app.parts.plane.listeners.open(sockets, 1024, None, greeted=False)
        assert (await app.reloads.reload()).applied
        assert modes() == ["660", "640"]
        for _ in range(2):
            await reload(app)
            assert app.reloads.last is not None
            assert "cannot be given to the group no-such-group" in app.reloads.last.problems[0]
            assert modes() == ["660", "640"]
        app.parts.plane.listeners.close()
        app.ports.close()

    asyncio.run(scenario())
