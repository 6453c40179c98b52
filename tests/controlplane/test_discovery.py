"""The watched list of backends, and how what it holds comes to the fleet."""

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import yaml

from proxy.affinity.health import Observation
from proxy.app import App
from proxy.config import Config, loads
from proxy.controlplane.discovery import FileSource
from proxy.members import Discovery
from tests.support.waiting import eventually

WITHIN = 20.0  # seconds, on a machine that is busy


def write(file: Path, *names: str, **weights: float) -> None:
    """Replace the list at once; each name has a port of its own."""
    entries = [
        {"name": name, "url": f"http://127.0.0.1:{1000 + ord(name)}", "weight": weights.get(name, 1)}
        for name in names
    ]
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(entries))
    fresh.replace(file)


def names(app: App) -> list[str]:
    """The backends of the fleet that are to stay."""
    return sorted(backend.name for backend in app.fleet if not backend.leaving)


def configured(file: Path, backends: str = "[]") -> Config:
    """A configuration with discovery."""
    text = f"listen: 127.0.0.1:0\ndiscovery: {{file: '{file}'}}\nbackends: {backends}\n"
    return loads(text, need_backends=True)


def following(app: App, scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario while the app's discovery runs."""

    async def both() -> None:
        task = asyncio.create_task(app.discovery.run())
        try:
            await app.discovery.first()
            await scenario
        finally:
            task.cancel()
            await asyncio.wait([task])

    asyncio.run(both())


def test_backends_come_change_and_go(tmp_path: Path) -> None:
    """Who is new is added, a weight is changed, who was never met leaves at once."""
    file = tmp_path / "list.json"
    write(file, "a", "b")
    app = App(configured(file))

    async def scenario() -> None:
        assert names(app) == ["a", "b"]
        kept = app.fleet.get("b")
        write(file, "b", "c", b=3)
        await eventually(lambda: names(app) == ["b", "c"], WITHIN, lambda: repr(app))
        assert app.fleet.get("b") is kept
        assert kept is not None
        assert kept.weight == 3
        assert app.discovery.source is not None
        assert app.discovery.source.updates == 2

    following(app, scenario())


@pytest.mark.parametrize("bad", ["", "[]", "- url: nowhere", "[{", None])
def test_a_bad_list_changes_nothing(
    tmp_path: Path, bad: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A list that is empty, wrong, cut or gone is logged and counted, and the last good one stays."""
    file = tmp_path / "list.json"
    write(file, "a", "b")
    app = App(configured(file))

    async def scenario() -> None:
        source = app.discovery.source
        assert source is not None
        if bad is None:
            file.unlink()
        else:
            file.write_text(bad)
        await eventually(lambda: source.failures, WITHIN, "a failure")
        assert names(app) == ["a", "b"]
        assert f"{file}" in caplog.text
        write(file, "c")
        await eventually(lambda: names(app) == ["c"], WITHIN, lambda: repr(app))

    following(app, scenario())


def test_a_backend_that_leaves_is_drained_and_kept_if_it_comes_back(tmp_path: Path) -> None:
    """With sessions it drains; found again before it is empty, it is ready again and the same backend."""
    file = tmp_path / "list.json"
    write(file, "a", "b")
    app = App(configured(file))

    async def scenario() -> None:
        a = app.fleet.get("a")
        assert a is not None
        for _ in range(2):
            app.fleet.observe(a, Observation.ANSWERED, monotonic())
        assert a.holds_pins
        write(file, "b")
        await eventually(lambda: a.leaving, WITHIN, lambda: repr(app))
        assert app.fleet.get("a") is a
        assert app.drains.get(a) is not None
        write(file, "a", "b")
        await eventually(lambda: not a.leaving, WITHIN, lambda: repr(app))
        assert app.drains.get(a) is None
        assert app.fleet.get("a") is a

    following(app, scenario())


def test_what_is_configured_comes_first(tmp_path: Path) -> None:
    """A found backend with a configured name or url is not taken, and the configured one stays."""
    file = tmp_path / "list.json"
    write(file, "a", "b", "c")
    entries = [
        {"name": "a", "url": "http://h:1"},
        {"name": "x", "url": f"http://127.0.0.1:{1000 + ord('b')}"},
    ]
    app = App(configured(file, yaml.safe_dump(entries, default_flow_style=True).strip()))

    async def scenario() -> None:
        assert names(app) == ["a", "c", "x"]
        write(file, "d")
        await eventually(lambda: names(app) == ["a", "d", "x"], WITHIN, lambda: repr(app))
        a = app.fleet.get("a")
        assert a is not None
        assert a.host == "h"

    following(app, scenario())


def test_a_reload_gives_a_backend_over_to_discovery(tmp_path: Path) -> None:
    """What is configured no more, but found, stays in the fleet; what is neither leaves."""
    file, url = tmp_path / "list.json", f"http://127.0.0.1:{1000 + ord('a')}"
    write(file, "a")
    old = configured(file, f"[{{name: a, url: '{url}'}}, {{name: x, url: 'http://h:1'}}]")
    app = App(old, lambda: configured(file))

    async def scenario() -> None:
        assert names(app) == ["a", "x"]
        try:
            await app.plane.doors.open([], asyncio.Protocol, 1024)
            done = await app.reloads.reload()
        finally:
            app.plane.doors.close()
            for sock in app.listening.values():
                sock.close()
        assert done.applied
        assert names(app) == ["a"]

    following(app, scenario())


def test_without_a_file_at_the_start_the_configured_are_served(tmp_path: Path) -> None:
    """The first reading fails, nothing waits for it longer, and the file is read when it comes."""
    file = tmp_path / "list.json"
    app = App(configured(file, "[{name: x, url: 'http://h:1'}]"))

    async def scenario() -> None:
        assert names(app) == ["x"]
        write(file, "a")
        await eventually(lambda: names(app) == ["a", "x"], WITHIN, lambda: repr(app))

    following(app, scenario())


def test_nothing_is_followed_without_discovery() -> None:
    """There is no source, and nothing to wait for."""
    discovery: Discovery = App(Config()).discovery
    assert discovery.source is None
    asyncio.run(discovery.first())


def test_the_same_list_again_is_no_update(tmp_path: Path) -> None:
    """A file that is written anew with the same backends tells nobody."""
    file = tmp_path / "list.json"
    write(file, "a")
    told: list[int] = []

    async def scenario() -> None:
        source = FileSource(str(file), lambda backends: told.append(len(backends)))
        for _ in range(3):
            await source._read()
        assert source.updates == 1

    asyncio.run(scenario())
    assert told == [1]
