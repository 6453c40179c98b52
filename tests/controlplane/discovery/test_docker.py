"""The containers that bear a label, from a stand-in of the engine on a unix socket."""

from pathlib import Path

import pytest

from proxy.affinity.health import Observation
from proxy.config import Config, ConfigError, loads
from tests.support.docker_engine import Engine, container
from tests.support.finding import WITHIN, Found, follow
from tests.support.waiting import eventually


def configured(engine: Engine, more: str = "", label: str = "com.docker.compose.service=chainlit") -> Config:
    """A configuration that asks this engine."""
    asked = f"{{label: '{label}', socket: '{engine.socket}'{more}}}"
    return loads(f"listen: 127.0.0.1:0\ndiscovery: {{docker: {asked}}}\n", need_backends=True)


async def listening(engine: Engine) -> None:
    """Wait until the proxy hears of events."""
    await eventually(lambda: engine.streams == 1, WITHIN, "a stream of events")


@pytest.mark.parametrize("label", ["com.docker.compose.service=chainlit", "chat"])
def test_containers_come_and_go(tmp_path: Path, label: str) -> None:
    """Each that runs and bears the label is a backend, called by its name; made anew it is the same one."""
    engine = Engine(tmp_path)
    other = container("other", "172.18.0.9")
    other["Labels"] = {"com.docker.compose.service": "redis"}

    async def scenario(found: Found) -> None:
        await engine.start(container("chat-1", "172.18.0.2"), container("chat-2", "172.18.0.3"), other)
        await found.until("chat-1", "chat-2")
        kept = found.answer("chat-1")
        assert kept.url == "http://172.18.0.2:8000"
        await engine.start(container("chat-1", "172.18.0.7"))
        await eventually(lambda: kept.host == "172.18.0.7", WITHIN, lambda: repr(kept))
        assert found.backend("chat-1") is kept
        assert not found.drained("chat-1")
        await engine.end("chat-2")
        await found.until("chat-1")
        await engine.end("chat-1")
        await found.until()
        assert found.drained("chat-1")
        assert found.metric("failures_total", "docker") == 0
        assert {asked.split()[0] for asked in engine.asked} == {"GET"}

    follow(configured(engine, label=label), scenario, beside=engine)


def test_one_that_ended_leaves_at_once(tmp_path: Path) -> None:
    """Its port refuses connections, so it is dead: there is nothing to drain."""
    engine = Engine(tmp_path)

    async def scenario(found: Found) -> None:
        await engine.start(container("chat-1", "172.18.0.2"))
        await found.until("chat-1")
        dead = found.answer("chat-1")
        found.app.parts.fleet.observe(dead, Observation.REFUSED, 0)
        await engine.end("chat-1")
        await eventually(lambda: dead.gone, WITHIN, lambda: repr(dead))
        assert not found.drained("chat-1")

    follow(configured(engine), scenario, drains=False, beside=engine)


def test_a_paused_container_stays(tmp_path: Path) -> None:
    """It is silent, not gone, so its sessions are kept for it; one without an address yet is not taken."""
    engine = Engine(tmp_path)

    async def scenario(found: Found) -> None:
        await engine.start(
            container("chat-1", "172.18.0.2", state="paused"),
            container("chat-2", ""),
            container("chat-3", "172.18.0.4", state="exited"),
            container("chat-4", networks={}),
        )
        await found.until("chat-1")

    follow(configured(engine), scenario, beside=engine)


def test_a_cut_stream_of_events_is_opened_again(tmp_path: Path) -> None:
    """What happened meanwhile is seen, and nobody is drained."""
    engine = Engine(tmp_path)

    async def scenario(found: Found) -> None:
        await engine.start(container("chat-1", "172.18.0.2"))
        await found.until("chat-1")
        found.answer("chat-1")
        await listening(engine)
        engine.cut()
        await engine.start(container("chat-2", "172.18.0.3"))
        await found.until("chat-1", "chat-2")
        await listening(engine)
        await engine.start(container("chat-3", "172.18.0.4"))
        await found.until("chat-1", "chat-2", "chat-3")
        assert not found.drained("chat-1")

    follow(configured(engine), scenario, beside=engine)


def test_an_engine_that_refuses_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its words are told, it is counted, the last good fleet stays, and it is asked again."""
    engine = Engine(tmp_path)

    async def scenario(found: Found) -> None:
        await engine.start(container("chat-1", "172.18.0.2"))
        await found.until("chat-1")
        found.answer("chat-1")
        await listening(engine)
        engine.refusal = "the engine is not well"
        await engine.start(container("chat-2", "172.18.0.3"))
        await found.until_failed("docker")
        assert "the engine is not well" in caplog.text
        assert found.names == ["chat-1"]
        assert not found.drained("chat-1")
        assert found.metric("current", "docker") == 0
        engine.refusal = ""
        await found.until("chat-1", "chat-2")
        assert found.metric("current", "docker") == 1

    follow(configured(engine), scenario, beside=engine)


def test_an_engine_that_is_away_is_waited_for(tmp_path: Path) -> None:
    """There is no socket at the start: that is counted, and the containers are found when it is there."""
    engine = Engine(tmp_path)

    async def scenario(found: Found) -> None:
        assert found.names == []
        assert found.metric("failures_total", "docker") >= 1
        async with engine:
            await engine.start(container("chat-1", "172.18.0.2"))
            await found.until("chat-1")

    follow(configured(engine), scenario)


def test_one_of_several_networks_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without its name the list is not usable, and the networks that there are are told."""
    engine = Engine(tmp_path)

    async def scenario(found: Found) -> None:
        await engine.start(container("chat-1", networks={"front": "10.0.0.1", "back": "10.1.0.1"}))
        await found.until_failed("docker")
        assert "discovery.docker.network must name one: back, front" in caplog.text
        assert (await found.reload(configured(engine, ", network: back, port: 8080"))).applied
        await found.until("chat-1")
        assert found.backend("chat-1").url == "http://10.1.0.1:8080"

    follow(configured(engine), scenario, beside=engine)


def test_mistakes_are_told() -> None:
    """Each at its key, with what is allowed."""
    with pytest.raises(ConfigError) as caught:
        loads("discovery:\n  docker:\n    label: ''\n    socket: docker.sock\n    port: 0\n")
    told = str(caught.value)
    assert "config:3: discovery.docker.label: must be text that is not empty" in told
    assert 'config:4: discovery.docker.socket: must be the absolute path of a socket (got "docker' in told
    assert "config:5: discovery.docker.port: must be a whole number from 1 to 65535" in told
