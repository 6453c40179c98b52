"""Who has a session, and what is written when, with both stores."""

import asyncio
from pathlib import Path
from typing import Any

from proxy.sessions import sharing as module
from proxy.sessions.codecs import Unstorable
from proxy.sessions.machine import Standing
from tests.sessions.conftest import RunScenario, Site
from tests.support.tabs import RECORD, Tab
from tests.support.waiting import eventually


def test_the_next_instance_finds_the_last_finished_turn(run: RunScenario) -> None:
    """After a turn the state is in the store; in one, what it was before and the turn."""

    async def scenario(site: Site) -> None:
        a, b, tab = site.instance(), site.instance(), Tab()
        assert await a.connect(tab, new=True) is None
        await a.turn(tab, "one")
        assert await b.connect(Tab(tab.id), new=True) == ("one", [])
        again = Tab(tab.id)
        assert await a.connect(again, new=True) == ("one", [])
        await a.begin(again)
        again.text = "half of two"
        a.sharing.changed(tab.id)
        await asyncio.sleep(2 * module.DEBOUNCE)
        assert await b.connect(Tab(tab.id), new=True) == ("one", [RECORD])

    run(scenario)


def test_a_first_turn_writes_the_state_before_it(run: RunScenario) -> None:
    """A session that dies in its very first turn is still that session."""

    async def scenario(site: Site) -> None:
        a, b, tab = site.instance(), site.instance(), Tab()
        await a.connect(tab, new=True)
        await a.begin(tab)
        assert await b.connect(Tab(tab.id), new=True) == ("fresh", [RECORD])

    run(scenario)


def test_a_beginning_that_has_not_ended_is_not_written(run: RunScenario) -> None:
    """While `on_chat_start` runs nothing is stored, so that it runs anew elsewhere."""

    async def scenario(site: Site) -> None:
        a, b, tab = site.instance(), site.instance(), Tab()
        await a.connect(tab, new=True)
        start = a.sharing.turn(tab.id, greets=True)
        await start.begin()
        a.sharing.changed(tab.id)
        await asyncio.sleep(2 * module.DEBOUNCE)
        assert a.counts.writes == 0
        start.end()
        await a.settled()
        assert await b.connect(Tab(tab.id), new=True) == ("fresh", [])

    run(scenario)


def test_a_beginning_that_does_not_return_holds_up_no_message(run: RunScenario) -> None:
    """Where `on_chat_start` runs on, the state is stored at the end of each message, and from then on."""

    async def scenario(site: Site) -> None:
        a, b, tab = site.instance(), site.instance(), Tab()
        await a.connect(tab, new=True)
        await a.sharing.turn(tab.id, greets=True).begin()
        async with a.sharing.turn(tab.id):
            tab.text = "a button is no message"
        assert a.counts.writes == 0
        await a.turn(tab, "one")
        assert await b.connect(Tab(tab.id), new=True) == ("one", [])
        await a.connect(tab, new=False)
        await a.turn(tab, "two")
        tab.text = "set between turns"
        a.sharing.changed(tab.id)
        await eventually(lambda: a.live(tab).timer is None, 5, "the change is seen")
        await a.settled()
        assert await b.connect(Tab(tab.id), new=True) == ("set between turns", [])

    run(scenario)


def test_a_turn_ends_itself_only(run: RunScenario) -> None:
    """A button that ends in the middle of a message's turn leaves that as it is."""

    async def scenario(site: Site) -> None:
        a, b, tab = site.instance(), site.instance(), Tab()
        await a.connect(tab, new=True)
        await a.turn(tab, "one")
        message = await a.begin(tab)
        async with a.sharing.turn(tab.id):
            tab.text = "half of two, and the button"
        await a.settled()
        assert await b.connect(Tab(tab.id), new=True) == ("one", [RECORD])
        assert await a.connect(tab, new=False) is None, "b has written nothing"
        tab.text = "two"
        for _ in range(3):
            message.end()
        await a.settled()
        assert await b.connect(Tab(tab.id), new=True) == ("two", [])

    run(scenario)


def test_the_newer_connection_wins(run: RunScenario) -> None:
    """An instance whose session went elsewhere writes nothing more, and ends its copy."""

    async def scenario(site: Site) -> None:
        a, b, old = site.instance(), site.instance(), Tab()
        await a.connect(old, new=True)
        await a.turn(old, "one")
        new = Tab(old.id)
        await b.connect(new, new=True)
        await b.turn(new, "two")
        old.text = "stale"
        assert await a.leave(old) is False
        assert (old.abandoned, a.counts.overtaken, a.standing(old)) == (1, 1, None)
        assert await b.leave(new) is True
        # And back: what a has in memory is older than what b wrote.
        assert await a.connect(old, new=False) == ("two", [])

    run(scenario)


def test_a_turn_that_the_store_refuses_does_not_run(run: RunScenario) -> None:
    """An instance that was away does not run a message of a session that another has."""

    async def scenario(site: Site) -> None:
        a, b, old = site.instance(), site.instance(), Tab()
        await a.connect(old, new=True)
        await a.turn(old, "one")
        await b.connect(new := Tab(old.id), new=True)
        async with a.sharing.turn(old.id, {"message": "late"}) as running:
            assert running is None
        assert await a.sharing.turn(old.id, {"message": "later"}).begin() is False
        assert a.standing(old) is Standing.LOST
        await a.settled()
        assert old.let_go_of == 1, "should its client be here, it connects anew"
        await b.turn(new, "two")
        assert await a.connect(old, new=False) == ("two", [])

    run(scenario)


def test_an_app_is_called_by_one_instance(run: RunScenario) -> None:
    """Who takes a session over knows whether the app was called; who has lost it does not call it."""

    async def scenario(site: Site) -> None:
        a, b, old = site.instance(), site.instance(), Tab()
        new, record = Tab(old.id), {"message": "one", "begun": False}
        await a.connect(old, new=True)
        turn = await a.begin(old, record)
        assert await b.connect(new, new=True) == ("fresh", [record])
        assert not await turn.calls()
        turn = await b.begin(new, record)
        assert await turn.calls()
        assert await a.connect(old, new=False) == ("fresh", [record | {"begun": True}])

    run(scenario)


def test_a_connection_that_was_refused_has_changed_nothing(run: RunScenario) -> None:
    """Nothing of it is written, and the next one finds what it found."""

    async def scenario(site: Site) -> None:
        a, b, tab = site.instance(), site.instance(), Tab()
        await a.connect(tab, new=True)
        await a.turn(tab, "one")
        await a.begin(tab)
        for _ in range(2):
            refused = await b.sharing.connect(Tab(tab.id, text="nothing"), new=True)
            b.sharing.changed(tab.id)
            refused.refuse()
            assert await refused.leaving() is False
            await refused.left(over=False)
        await asyncio.sleep(2 * module.DEBOUNCE)
        assert b.counts.writes == 0
        assert await b.connect(Tab(tab.id), new=True) == ("one", [RECORD])

    run(scenario)


def test_a_reconnect_at_the_same_instance_changes_nothing(run: RunScenario) -> None:
    """What is in memory is what counts as long as nobody else wrote, also in a turn."""

    async def scenario(site: Site) -> None:
        a, b, tab = site.instance(), site.instance(), Tab()
        await a.connect(tab, new=True)
        turn = await a.begin(tab)
        fence = a.live(tab).fence
        assert await a.connect(tab, new=False) is None
        assert a.live(tab).fence == fence
        await b.sharing.connect(Tab(tab.id), new=True)  # whose answer never reached its client
        assert await a.connect(tab, new=False) is None
        tab.text = "one"
        turn.end()
        await a.settled()
        assert await b.connect(Tab(tab.id), new=True) == ("one", [])

    run(scenario)


def test_an_older_connection_ends_nothing(run: RunScenario) -> None:
    """The end of a connection that is told late does not end what a newer one of the client has."""

    async def scenario(site: Site) -> None:
        a, tab = site.instance(), Tab()
        first = await a.sharing.connect(tab, new=True)
        await a.connect(tab, new=False)
        assert await first.leaving()
        for over in (False, True):
            await first.left(over=over)
        assert a.live(tab).connected
        assert a.standing(tab) is Standing.CLAIMED
        await a.turn(tab, "one")
        assert await site.instance().connect(Tab(tab.id), new=True) == ("one", [])

    run(scenario)


def test_a_cut_turn_is_known_until_its_user_was_told(run: RunScenario) -> None:
    """An instance that dies before it said hello leaves the turn to the next."""

    async def scenario(site: Site) -> None:
        a, b, c, tab = site.instance(), site.instance(), site.instance(), Tab()
        await a.connect(tab, new=True)
        await a.begin(tab)
        connection = await b.sharing.connect(again := Tab(tab.id), new=True)
        assert await connection.leaving()
        assert await c.connect(again, new=True) == ("fresh", [RECORD])
        c.sharing.changed(tab.id)
        await c.leave(again)
        assert await b.connect(again, new=True) == ("fresh", [])

    run(scenario)


def test_another_user_starts_anew_and_overwrites_nothing(run: RunScenario) -> None:
    """Whoever names somebody else's session finds nothing, is not shared, and chats all the same."""

    async def scenario(site: Site) -> None:
        a, b, c = site.instance(), site.instance(), site.instance()
        ada = Tab(owner="=ada")
        await a.connect(ada, new=True)
        await a.turn(ada, "secret")
        eve = Tab(ada.id, "=eve")
        assert await b.connect(eve, new=True) is None
        await b.turn(eve, "forged")
        await b.leave(eve, over=True)
        assert (b.counts.refused, b.counts.writes) == (1, 0)
        assert await c.connect(Tab(ada.id, "=ada"), new=True) == ("secret", [])

    run(scenario)


def test_gone_is_gone(run: RunScenario) -> None:
    """A new chat leaves neither a state nor files, whatever was still to be written."""

    async def scenario(site: Site) -> None:
        a, b, tab = site.instance(), site.instance(), Tab()
        tab.paths = [site.folder / "upload.txt"]
        tab.paths[0].write_text("x" * 100)
        await a.connect(tab, new=True)
        await a.turn(tab, "one")
        assert [path.name for path in (site.folder / "files").rglob("*.txt")] == ["upload.txt"]
        turn = await a.begin(tab)
        tab.text = "two"
        turn.end()
        a.sharing.changed(tab.id)
        await a.leave(tab, over=True)
        live, text = a.sharing._live.get(tab.id), "three"
        assert live is None
        tab.text = text
        turn.end()
        a.sharing.changed(tab.id)
        await asyncio.sleep(2 * module.DEBOUNCE)
        await a.settled()
        assert list((site.folder / "files").iterdir()) == []
        assert await b.connect(Tab(tab.id), new=True) == (None, [])

    run(scenario)


def test_what_cannot_be_stored_any_more_is_not_restored(run: RunScenario, caplog: Any) -> None:
    """A session that outgrows the store begins anew elsewhere, not at an older turn; it is told once."""

    async def scenario(site: Site) -> None:
        a, b, tab = site.instance(), site.instance(), Tab()
        await a.connect(tab, new=True)
        await a.turn(tab, "one")
        tab.refusal = Unstorable("it is too large")
        await a.turn(tab, "two")
        await a.turn(tab, "three")
        assert await b.connect(Tab(tab.id), new=True) == (None, [])
        assert a.counts.unstorable == 2
        assert len([r for r in caplog.records if "not shared any more" in r.getMessage()]) == 1
        await a.connect(tab, new=False)
        tab.refusal = None
        await a.turn(tab, "four")
        assert await b.connect(Tab(tab.id), new=True) == ("four", [])

    run(scenario)


def test_files_come_along(run: RunScenario, tmp_path: Path) -> None:
    """What was uploaded at one instance is readable at the next, after the first has removed its own."""

    async def scenario(site: Site) -> None:
        a, b, tab = site.instance(), site.instance(), Tab()
        tab.paths = [tmp_path / "a" / "id.txt"]
        tab.paths[0].parent.mkdir()
        tab.paths[0].write_text("hello")
        await a.connect(tab, new=True)
        await a.turn(tab, "one")
        tab.paths[0].unlink()
        await b.connect(Tab(tab.id), new=True)
        there = tmp_path / "b" / "id.txt"
        never = [tmp_path / "b" / name for name in ("never.txt", "..", "x\0", "y" * 300)]
        await b.sharing.bring(tab.id, [*never, there])
        assert there.read_text() == "hello"

    run(scenario)
