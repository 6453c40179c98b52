"""Real processes for the system tests: one fleet for the whole run, a proxy of its own for every test.

Every test uses sessions of its own, so the fleet can be shared; what a test killed or paused is brought
back before the next one.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.instances import Fleet
from tests.support.processes import kill_left
from tests.support.proxy_process import MakeProxy, ProxyProcess, config_for
from tests.support.run_command import RunCommand
from tests.support.sharing import START, RunSharing
from tests.support.waiting import wait_until


@pytest.fixture(scope="session")
def whole_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three instances for the whole run."""
    with Fleet(tmp_path_factory.mktemp("fleet"), 3) as fleet:
        yield fleet


@pytest.fixture
def fleet(whole_fleet: Fleet) -> Fleet:
    """The three instances, all alive."""
    whole_fleet.heal()
    return whole_fleet


@pytest.fixture
def make_proxy(fleet: Fleet, tmp_path: Path) -> Iterator[MakeProxy]:
    """Makes a running proxy before the named instances, or all; its log is shown if the test fails."""
    made: list[ProxyProcess] = []

    def make(names: str = "", **sections: Any) -> ProxyProcess:
        config = config_for((fleet[name] for name in names or fleet.names), **sections)
        proxy = ProxyProcess(config, tmp_path, f"proxy{len(made)}")
        made.append(proxy)
        proxy.start()
        alive = [name for name in names or fleet.names if fleet[name].running]
        proxy.wait_health(dict.fromkeys(alive, "healthy"))
        return proxy

    yield make
    for proxy in made:
        proxy.kill9()
        print(proxy.tail(200))


@pytest.fixture
def proxy(make_proxy: MakeProxy) -> ProxyProcess:
    """A running proxy before all three instances."""
    return make_proxy()


@pytest.fixture
def command(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RunCommand]:
    """The command, running; whatever it leaves behind is killed. Its parameter is the text of its file."""
    folder = tmp_path / "app"
    folder.mkdir()
    run = RunCommand(folder, getattr(request, "param", ""))
    pids: list[int] = []
    try:
        run.start()
        pids = run.pids()
        yield run
    finally:
        pids += run.pids() if run.running else []
        run.kill9()
        print(run.tail(200))
        kill_left(pids)


@pytest.fixture(scope="module")
def whole_sharing_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunSharing]:
    """Three replicas for all tests here."""
    run = RunSharing(tmp_path_factory.mktemp("run"), 3, env={"AUDIO": "1"})
    try:
        run.start()
        yield run
    finally:
        run.end()
        print(run.tail(200))


@pytest.fixture
def run(whole_sharing_run: RunSharing) -> RunSharing:
    """The three replicas, all back from what the last test did."""
    wait_until(
        whole_sharing_run.all_healthy, START, lambda: f"all replicas healthy\n{whole_sharing_run.tail()}"
    )
    return whole_sharing_run
