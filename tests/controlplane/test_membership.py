"""Who belongs to the fleet, when several lists say so."""

import asyncio
import json
from pathlib import Path

import pytest

from proxy.affinity.backend import AdminState
from proxy.affinity.health import Observation
from proxy.config import Config, loads
from proxy.controlplane import membership
from tests.support.certificates import Authority
from tests.support.dns_server import DnsServer
from tests.support.finding import WITHIN, Found, entries, follow, replace, url
from tests.support.waiting import eventually


def configured(file: Path | None, backends: str = "[]") -> Config:
    """A configuration with backends of its own, and a list."""
    found = f"{{file: '{file}'}}" if file else "{}"
    return loads(f"listen: 127.0.0.1:0\ndiscovery: {found}\nbackends: {backends}\n")


def test_a_backend_that_leaves_is_drained_and_kept_if_it_comes_back(tmp_path: Path) -> None:
    """With sessions it drains; found again before it is empty, it is ready again and the same backend."""
    file = tmp_path / "list.json"
    file.write_text(entries("a", "b"))

    async def scenario(found: Found) -> None:
        a = found.answer("a")
        replace(file, entries("b"))
        await found.until("b")
        assert found.backend("a") is a
        assert (a.holds_pins, a.takes_sessions) == (True, False)
        replace(file, entries("a", "b"))
        await found.until("a", "b")
        assert found.backend("a") is a
        assert a.takes_sessions
        assert found.app.parts.drains.get(a) is None

    follow(configured(file), scenario, drains=False)


@pytest.mark.parametrize("dead", [True, False], ids=["dead", "alive"])
def test_a_backend_that_carries_nothing_leaves(tmp_path: Path, dead: bool) -> None:
    """One that is dead leaves at once; one that lives is drained first, and leaves when it is empty."""
    file = tmp_path / "list.json"
    file.write_text(entries("a", "b"))

    async def scenario(found: Found) -> None:
        a = found.answer("a")
        if dead:
            found.app.parts.fleet.observe(a, Observation.REFUSED, 0)
        replace(file, entries("b"))
        await eventually(lambda: a.gone, WITHIN, lambda: repr(found.app.parts.fleet))
        assert found.drained("a") is not dead

    follow(configured(file), scenario)


def test_the_wish_of_the_operator_outlives_an_absence(tmp_path: Path) -> None:
    """A backend that an operator drains, and that is found no more and then again, is still drained."""
    file = tmp_path / "list.json"
    file.write_text(entries("a", "b"))

    async def scenario(found: Found) -> None:
        a = found.answer("a")
        found.app.parts.drains.drain(a)
        replace(file, entries("b"))
        await found.until("b")
        replace(file, entries("a", "b"))
        await found.until("a", "b")
        assert a.admin_state is AdminState.DRAIN

    follow(configured(file), scenario, drains=False)


def test_the_time_that_an_operator_gave_a_drain_stays(tmp_path: Path) -> None:
    """A backend that drains and is found no more has neither less time than before, nor more."""
    file = tmp_path / "list.json"
    file.write_text(entries("a", "b"))

    async def scenario(found: Found) -> None:
        drain = found.app.parts.drains.drain(found.answer("a"), 7.0)
        deadline = drain.deadline
        replace(file, entries("b"))
        await found.until("b")
        assert drain.deadline == deadline

    follow(configured(file), scenario, drains=False)


@pytest.mark.parametrize("state", [AdminState.MAINTENANCE, AdminState.DRAIN])
def test_a_wish_outlives_its_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: AdminState
) -> None:
    """One that an operator took out is not back in service by leaving; after an hour it is a new one."""
    file = tmp_path / "list.json"
    file.write_text(entries("a", "b"))

    async def scenario(found: Found) -> None:
        drains, fleet = found.app.parts.drains, found.app.parts.fleet

        async def goes_and_is_back() -> AdminState:
            a = found.answer("a")
            (drains.maintenance if state is AdminState.MAINTENANCE else drains.drain)(a)
            fleet.observe(a, Observation.REFUSED, 0)
            replace(file, entries("b"))
            await eventually(lambda: a.gone, WITHIN, lambda: repr(fleet))
            replace(file, entries("a", "b"))
            await eventually(lambda: fleet.get("a"), WITHIN, lambda: repr(fleet))
            return found.backend("a").admin_state

        assert await goes_and_is_back() is state
        monkeypatch.setattr(membership, "_REMEMBERED", -1.0)
        drains.ready(found.backend("a"))
        assert await goes_and_is_back() is AdminState.READY

    follow(configured(file), scenario)


@pytest.mark.parametrize("by_itself", [True, False], ids=["hook", "list"])
def test_a_drain_that_nobody_wished_is_over_with_its_backend(tmp_path: Path, by_itself: bool) -> None:
    """That of a pod's hook, and that of one which is found no more, are no wish of an operator."""
    file = tmp_path / "list.json"
    file.write_text(entries("a", "b"))

    async def scenario(found: Found) -> None:
        fleet, a = found.app.parts.fleet, found.answer("a")
        if by_itself:
            found.app.parts.drains.drain_for(a, None, until_restart=True)
        replace(file, entries("b"))
        await eventually(lambda: a.gone, WITHIN, lambda: repr(fleet))
        replace(file, entries("a", "b"))
        await eventually(lambda: fleet.get("a"), WITHIN, lambda: repr(fleet))
        assert found.backend("a").admin_state is AdminState.READY

    follow(configured(file), scenario)


def test_one_that_was_drained_already_leaves(tmp_path: Path) -> None:
    """An operator has emptied it, then its list has it no more: it does not stay for ever."""
    file = tmp_path / "list.json"
    file.write_text(entries("a", "b"))

    async def scenario(found: Found) -> None:
        a = found.answer("a")
        await found.app.parts.drains.until_empty(a)
        assert not a.gone
        replace(file, entries("b"))
        await eventually(lambda: a.gone, WITHIN, lambda: repr(found.app.parts.fleet))

    follow(configured(file), scenario)


def test_what_is_configured_comes_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A found backend with a configured name or url is not taken, which is told once."""
    file = tmp_path / "list.json"
    file.write_text(entries("a", "b", "c"))
    own = f"[{{name: a, url: 'http://h:1'}}, {{name: x, url: '{url('b')}'}}]"

    async def scenario(found: Found) -> None:
        assert found.names == ["a", "c", "x"]
        assert found.backend("a").host == "h"
        replace(file, entries("a", "d"))
        await found.until("a", "d", "x")
        assert found.backend("a").host == "h"
        assert caplog.text.count("backend a ") == 1
        assert caplog.text.count("backend b ") == 1

    follow(configured(file, own), scenario)


def test_a_backend_is_handed_over_without_a_drain(tmp_path: Path) -> None:
    """Configured no more but found, or the other way round, it stays as it is; what is neither leaves."""
    file = tmp_path / "list.json"
    file.write_text(entries("a"))
    own = f"[{{name: a, url: '{url('a')}'}}, {{name: x, url: 'http://h:1'}}]"

    async def scenario(found: Found) -> None:
        a, x = found.answer("a"), found.answer("x")
        assert (await found.reload(configured(file))).applied
        assert x.leaving
        assert found.names == ["a"]
        assert (await found.reload(configured(file, own))).applied
        assert found.names == ["a", "x"]
        assert found.backend("x") is x
        assert found.backend("a") is a
        assert not found.drained("a")
        assert a.takes_sessions

    follow(configured(file, own), scenario, drains=False)


def test_a_reload_changes_the_sources(tmp_path: Path) -> None:
    """Another path is followed, what was found stays until it answers; without one what was found leaves."""
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_text(entries("a"))

    async def scenario(found: Found) -> None:
        found.answer("a")
        done = await found.reload(configured(second))
        assert (done.changes, done.restart) == (("discovery",), ())
        await found.until_failed("file")
        assert found.names == ["a"]
        second.write_text(entries("a", "b"))
        await found.until("a", "b")
        assert not found.drained("a")
        first.write_text(entries("z"))  # is followed no more
        assert (await found.reload(configured(None, "[{url: 'http://h:1'}]"))).applied
        assert found.names == ["h:1"]
        assert found.app.parts.membership.sources == {}

    follow(configured(first), scenario)


def test_a_reload_that_changes_no_source_leaves_it_alone(tmp_path: Path) -> None:
    """Its list is not read again, and its counts go on."""
    file = tmp_path / "list.json"
    file.write_text(entries("a"))

    async def scenario(found: Found) -> None:
        source = found.app.parts.membership.sources["file"]
        assert (await found.reload(configured(file, "[{url: 'http://h:1'}]"))).applied
        assert found.names == ["a", "h:1"]
        assert found.app.parts.membership.sources["file"] is source

    follow(configured(file), scenario)


def test_a_backend_that_was_found_moves(tmp_path: Path) -> None:
    """The same name at another url is the same backend: its pins hold, and it is told to be elsewhere."""
    file = tmp_path / "list.json"
    file.write_text(entries("a"))

    async def scenario(found: Found) -> None:
        a = found.answer("a")
        replace(file, json.dumps([{"name": "a", "url": url("z")}]))
        await eventually(lambda: a.url == url("z"), WITHIN, lambda: repr(a))
        assert found.backend("a") is a
        assert ("a", f"is at {url('z')} now") in found.told

    follow(configured(file), scenario)


def test_nothing_is_waited_for_without_sources() -> None:
    """The first lists are there when there are none."""

    async def scenario() -> None:
        async with asyncio.timeout(1):
            await Found(Config()).app.parts.membership.first()

    asyncio.run(scenario())


def test_several_sources_are_followed_together(tmp_path: Path) -> None:
    """Their lists are laid together; what one of them lets go of comes from the next that has it."""
    server = DnsServer(tmp_path)
    server.serve("host-record=app.test,127.0.0.1", "host-record=app.test,127.0.0.2")
    file = tmp_path / "list.json"
    file.write_text(json.dumps([{"name": "x", "url": "http://127.0.0.1:8000"}]))
    dns = f"{{name: app.test, port: 8000, servers: '127.0.0.1:{server.port}', longest: 1}}"
    config = loads(f"discovery: {{dns: {dns}, file: '{file}'}}\n", need_backends=True)

    async def scenario(found: Found) -> None:
        await found.until("127.0.0.2:8000", "x")
        assert found.metric("backends", "dns") == 2
        assert found.metric("backends", "file") == 1
        replace(file, entries("a"))
        await found.until("127.0.0.1:8000", "127.0.0.2:8000", "a")
        server.kill9()
        await found.until_failed("dns")
        replace(file, entries("b"))
        await found.until("127.0.0.1:8000", "127.0.0.2:8000", "b")

    try:
        follow(config, scenario)
    finally:
        server.kill9()


def test_authorities_that_went_bad_stay_as_they_were(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A reload looks at those of found backends again: good ones are taken, bad ones not used."""
    authority = Authority(tmp_path)
    file, ca = tmp_path / "list.yaml", tmp_path / "ca.pem"
    ca.write_text(authority.file.read_text())
    file.write_text(f"- {{name: a, url: 'https://h:1', tls: {{ca: '{ca}'}}}}\n")

    async def scenario(found: Found) -> None:
        a = found.answer("a")
        first = a.tls
        assert (await found.reload(configured(file))).applied
        second = a.tls
        assert second is not first
        ca.write_text("no certificate")
        assert (await found.reload(configured(file))).applied
        assert a.tls is second
        assert "backend a: tls.ca must hold certificates in PEM form" in caplog.text
        assert found.names == ["a"]
        assert not found.drained("a")

    follow(configured(file), scenario)


def test_names_that_may_be_public_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At the start, and of a list that was found: a name that the public DNS may be asked for."""
    file = tmp_path / "list.json"
    file.write_text(
        json.dumps([{"name": "b", "url": "http://b.chat:1"}, {"name": "c", "url": "http://c.chat.:1"}])
    )

    async def scenario(found: Found) -> None:
        await found.until("a", "b", "c")

    follow(configured(file, "[{name: a, url: 'http://a.chat:1'}]"), scenario)
    told = [record.message for record in caplog.records if "relative name" in record.message]
    assert [text.partition(" is a")[0] for text in told] == ["backends[0].url: a.chat", "backend b: b.chat"]
