"""What happens while a store fails: as a whole, for one value, or for one file."""

import asyncio
import errno
import itertools
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from proxy.sessions import sharing as module
from proxy.sessions.files import FolderFiles
from proxy.sessions.machine import Standing
from proxy.sessions.sqlite_store import SqliteStore
from proxy.sessions.store import Write
from tests.sessions.conftest import RunScenario, Site, Stores
from tests.support.tabs import Tab, end_tasks
from tests.support.waiting import eventually


def test_a_store_that_is_down_costs_no_turn_and_is_caught_up(run: RunScenario) -> None:
    """Turns go on, nobody asks the store meanwhile, and what is live is written when it is back."""

    async def scenario(site: Site) -> None:
        (flaky, a), b = site.flaky(), site.instance()
        tab, newcomer = Tab(), Tab()
        await a.connect(tab, new=True)
        await a.turn(tab, "one")
        flaky.down = True
        for text in ("two", "three"):
            await a.turn(tab, text)
        assert await a.connect(newcomer, new=True) is None
        assert (a.counts.store_up, a.told) == (False, ["", "store: it was told to be"])
        asked = flaky.asked
        turn = await a.begin(newcomer)
        assert flaky.asked == asked
        turn.end()
        flaky.down = False
        await a.back()
        assert a.told[2:] == [""]
        assert await b.connect(Tab(tab.id), new=True) == ("three", [])
        assert await b.connect(Tab(newcomer.id), new=True) == ("fresh", [])

    run(scenario)


@pytest.mark.parametrize("answers", [1, 2])
def test_a_lost_answer_is_no_other_instance(run: RunScenario, answers: int) -> None:
    """A claim that was done and not answered is ours already: the running turn goes on, and is stored."""

    async def scenario(site: Site) -> None:
        (flaky, a), b, tab = site.flaky(), site.instance(), Tab()
        await a.connect(tab, new=True)
        await a.turn(tab, "one")
        turn = await a.begin(tab)
        flaky.losing = answers
        assert await a.connect(tab, new=False) is None
        tab.text = "two"
        turn.end()
        flaky.losing = answers
        await a.settled()
        await a.turn(tab, "three")
        assert (tab.abandoned, a.counts.overtaken, a.counts.store_up) == (0, 0, True)
        assert await b.connect(Tab(tab.id), new=True) == ("three", [])

    run(scenario)


def test_a_lost_answer_to_the_first_claim_restores_all_the_same(run: RunScenario) -> None:
    """What another instance left is found by the claim that is repeated, although it is ours already."""

    async def scenario(site: Site) -> None:
        a, (flaky, b), tab = site.instance(), site.flaky(), Tab()
        await a.connect(tab, new=True)
        await a.turn(tab, "one")
        flaky.losing = 1
        assert await b.connect(Tab(tab.id), new=True) == ("one", [])

    run(scenario)


def test_a_lost_answer_hides_nothing_that_others_wrote(run: RunScenario) -> None:
    """Who comes back to an older copy gets the newer state by the claim that is repeated, too."""

    async def scenario(site: Site) -> None:
        store, a = site.flaky()
        b, old = site.instance(), Tab()
        await a.connect(old, new=True)
        await a.turn(old, "one")
        await b.connect(new := Tab(old.id), new=True)
        await b.turn(new, "two")
        store.losing = 1
        assert await a.connect(old, new=False) == ("two", [])
        assert await a.connect(old, new=False) is None, "and once only"

    run(scenario)


def test_after_a_claim_without_an_answer_all_is_written(run: RunScenario) -> None:
    """What the store has then is not known: it may have forgotten the session before."""

    async def scenario(site: Site) -> None:
        store, a = site.flaky()
        b, tab = site.instance(), Tab()
        await a.connect(tab, new=True)
        await a.turn(tab, "one")
        await b.store.write(tab.id, "", "nobody", Write(2**50, 1, "", None), 60.0)
        await b.store.write(tab.id, "", "nobody", Write(2**50, 2, "", None), 0.01)
        await asyncio.sleep(0.05)
        store.losing = 2
        assert await a.connect(tab, new=False) is None
        a.sharing.changed(tab.id)
        await eventually(lambda: a.live(tab).timer is None, 5, "the change is seen")
        await a.settled()
        assert await b.connect(Tab(tab.id), new=True) == ("one", [])

    run(scenario)


def test_finished_turns_are_not_rolled_back(run: RunScenario) -> None:
    """A client that comes back to its instance while the store is down keeps all that was said."""

    async def scenario(site: Site) -> None:
        (flaky, a), b, tab = site.flaky(), site.instance(), Tab()
        await a.connect(tab, new=True)
        await a.turn(tab, "one")
        flaky.down = True
        await a.turn(tab, "two")
        assert await a.connect(tab, new=False) is None
        await a.turn(tab, "three")
        flaky.down = False
        await a.back()
        assert await a.connect(tab, new=False) is None
        assert (tab.text, tab.abandoned) == ("three", 0)
        assert await b.connect(Tab(tab.id), new=True) == ("three", [])

    run(scenario)


def test_an_outage_that_is_over_gives_no_right_to_a_session(run: RunScenario) -> None:
    """A client that came in it and moved on much later has its newer turns: the older copy is out."""

    async def scenario(site: Site) -> None:
        (flaky, a), b, old = site.flaky(), site.instance(), Tab()
        new = Tab(old.id)
        await a.connect(old, new=True)
        await a.turn(old, "one")
        flaky.down = True
        await a.turn(old, "two")
        await a.connect(old, new=False)
        flaky.down = False
        await a.back()
        await a.turn(old, "three")
        assert await b.connect(new, new=True) == ("three", [])
        await b.turn(new, "four")
        assert not await a.sharing.turn(old.id, {"message": "late"}).begin(), "a has not heard of it"
        await a.settled()
        await b.turn(new, "five")
        assert (a.standing(old), b.standing(new)) == (Standing.LOST, Standing.CLAIMED)
        assert await a.connect(old, new=False) == ("five", [])

    run(scenario)


def test_who_stood_still_in_an_outage_takes_nothing_back(
    run: RunScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its client, who is elsewhere since, has finished there is found by the next connection."""
    monkeypatch.setattr(module, "now_ms", itertools.count(1).__next__)  # no two connections in one of them

    async def scenario(site: Site) -> None:
        (flaky, a), b, old = site.flaky(), site.instance(), Tab()
        new = Tab(old.id)
        await a.connect(old, new=True)
        await a.turn(old, "one")
        flaky.down = True
        await a.connect(old, new=False)
        await a.turn(old, "two")
        assert await b.connect(new, new=True) == ("one", [])
        await b.turn(new, "three")
        flaky.down = False
        await a.back()
        assert (a.standing(old), old.let_go_of) == (Standing.LOST, 1)
        await b.connect(new, new=False)
        await b.turn(new, "four")
        assert await a.connect(old, new=False) == ("four", [])

    run(scenario)


def test_a_store_that_comes_back_empty_is_filled_again(run: RunScenario) -> None:
    """The first write that finds no record has all live sessions written, not only those that changed."""

    async def scenario(site: Site) -> None:
        a, b = site.instance(), site.instance()
        idle, busy, elsewhere = Tab(), Tab(), Tab()
        for tab in (idle, busy):
            await a.connect(tab, new=True)
            await a.turn(tab, "one")
        await a.connect(elsewhere, new=True)
        await b.connect(there := Tab(elsewhere.id), new=True)
        await b.turn(there, "at b")
        for tab, by in ((idle, a), (busy, a), (elsewhere, b)):
            fence = by.live(tab).fence
            await a.store.write(tab.id, "", "x", Write(fence, 10**9, "", None), 0.01)
        await asyncio.sleep(0.05)
        await a.turn(busy, "two")
        await a.settled()
        assert a.standing(elsewhere) is Standing.LOST or b.counts.writes
        await b.turn(there, "still at b")
        assert await b.connect(Tab(idle.id), new=True) == ("one", [])
        assert await b.connect(Tab(busy.id), new=True) == ("two", [])
        assert await a.connect(Tab(elsewhere.id), new=True) == ("still at b", [])

    run(scenario)


def test_a_turn_that_finds_the_store_empty_writes_what_was_before_it(run: RunScenario) -> None:
    """Nobody else has noticed, and the instance ends in the turn: the next one has all that was finished."""

    async def scenario(site: Site) -> None:
        a, b, tab = site.instance(), site.instance(), Tab()
        await a.connect(tab, new=True)
        await a.turn(tab, "one")
        await a.store.write(tab.id, "", "x", Write(a.live(tab).fence, 10**9, "", None), 0.01)
        await asyncio.sleep(0.05)
        turn = await a.begin(tab, {"n": 2})
        tab.text = "half of two"
        assert await b.connect(Tab(tab.id), new=True) == ("one", [{"n": 2}])
        turn.end()

    run(scenario)


def test_gone_is_gone_also_while_the_store_is_down(run: RunScenario) -> None:
    """What the user ended then is removed when the store is back."""

    async def scenario(site: Site) -> None:
        (flaky, a), b, tab = site.flaky(), site.instance(), Tab()
        await a.connect(tab, new=True)
        await a.turn(tab, "one")
        flaky.down = True
        await a.turn(tab, "two")
        await a.leave(tab, over=True)
        assert a.standing(tab) is Standing.OVER
        flaky.down = False
        await a.back()
        assert a.standing(tab) is None
        assert await b.connect(Tab(tab.id), new=True) == (None, [])

    run(scenario)


def test_a_value_that_the_store_does_not_take_costs_itself(
    run: RunScenario, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that works is not down because of one session, whose older state is not restored any more."""

    async def scenario(site: Site) -> None:
        (flaky, a), b = site.flaky(), site.instance()
        large, small = Tab(), Tab()
        flaky.refuses = 1000
        for tab in (large, small):
            await a.connect(tab, new=True)
            await a.turn(tab, "one")
        await a.turn(large, "x" * 1000)
        await a.turn(small, "two")
        assert (a.counts.store_up, a.counts.unstorable, a.told) == (True, 1, [""])
        assert "does not take its 1000 characters" in caplog.text
        assert await b.connect(Tab(small.id), new=True) == ("two", [])
        assert await b.connect(Tab(large.id), new=True) == (None, [])

    run(scenario)


def test_a_file_that_cannot_be_kept_costs_itself(
    run: RunScenario, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that is not there is told once and counted; sessions are shared, and it is tried again."""

    async def scenario(site: Site) -> None:
        a, b, tab = site.instance(), site.instance(), Tab()
        (site.folder / "files").write_text("no folder")
        tab.paths = [tmp_path / "id.txt"]
        tab.paths[0].write_text("hello")
        await a.connect(tab, new=True)
        for text in ("one", "two"):
            await a.turn(tab, text)
        await a.settled()
        assert (a.counts.store_up, a.counts.dropped_values) == (True, 1)
        warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        assert len(warnings) == 1
        assert warnings[0].startswith("a file is not shared: [Errno")
        again = Tab(tab.id)
        assert await b.connect(again, new=True) == ("two", [])
        (site.folder / "files").unlink()
        again.paths = tab.paths
        await b.turn(again, "three")
        await b.settled()
        assert (site.folder / "files" / tab.id / "id.txt").read_text() == "hello"

    run(scenario)


def test_a_file_of_sessions_that_is_removed_is_made_anew(tmp_path: Path) -> None:
    """Whoever had it open goes on in the one that others open, with all that lives."""

    async def scenario() -> None:
        async with Stores(lambda: SqliteStore(tmp_path / "folder" / "sessions.db")) as make:
            site = Site(make, tmp_path)
            a, quiet, talking = site.instance(), Tab(), Tab()
            for tab in (quiet, talking):
                await a.connect(tab, new=True)
                await a.turn(tab, "one")
            shutil.rmtree(tmp_path / "folder")
            b = site.instance()
            await b.store.ping()
            await a.turn(talking, "two")
            await a.settled()
            assert await b.connect(Tab(talking.id), new=True) == ("two", [])
            assert await b.connect(Tab(quiet.id), new=True) == ("one", [])
            await end_tasks()

    asyncio.run(scenario())


def test_files_that_were_swept_are_kept_again(run: RunScenario, tmp_path: Path) -> None:
    """After a machine stood still for hours, others sweep what was only not touched."""

    async def scenario(site: Site) -> None:
        a, b, tab = site.instance(), site.instance(), Tab()
        await a.connect(tab, new=True)
        tab.paths = [tmp_path / "upload"]
        tab.paths[0].write_text("content")
        await a.turn(tab, "one")
        await FolderFiles(site.folder / "files", 100).sweep(-60)
        assert not list((site.folder / "files").iterdir())
        await a.sharing._renew()
        await a.settled()
        await b.connect(Tab(tab.id), new=True)
        await b.sharing.bring(tab.id, [there := tmp_path / "b" / "upload"])
        assert there.read_text() == "content"

    run(scenario)


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that breaks off is an error, and what there was of it is removed."""

    def breaks_off(_: Path, target: Path) -> None:
        target.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    def no_links(*_: Any) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(shutil, "copyfile", breaks_off)
    monkeypatch.setattr(os, "link", no_links)
    upload = tmp_path / "upload"
    upload.write_text("whole")
    with pytest.raises(OSError, match="No space"):
        asyncio.run(FolderFiles(tmp_path / "files", 100).keep("session-1", upload, 60))
    assert list((tmp_path / "files" / "session-1").iterdir()) == []


def test_the_back_off_goes_on(run: RunScenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that comes back for a moment is not asked as often again as at first."""
    monkeypatch.setattr(module, "FIRST_RETRY", 0.01)

    async def scenario(site: Site) -> None:
        (flaky, a), tab = site.flaky(), Tab()
        await a.connect(tab, new=True)
        a.sharing._delay = module.FIRST_RETRY
        delays: list[float] = []
        for _ in range(4):
            flaky.down = True
            await a.turn(tab, f"{len(delays)}")
            flaky.down = False
            delays.append(a.sharing._delay)
            await a.back()
        assert delays == sorted(delays)
        assert delays[-1] >= 4 * delays[0]
        a.sharing._up_since -= module.STEADY
        flaky.down = True
        await a.turn(tab, "at last")
        await asyncio.sleep(0)
        assert a.sharing._delay <= 2 * module.FIRST_RETRY

    run(scenario)
