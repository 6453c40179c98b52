"""What can be told to a running proxy by its API, and what is answered."""

import asyncio
import json
from math import inf, nan
from typing import Any

import pytest

from proxy.affinity.backend import AdminState
from proxy.affinity.health import Observation
from tests.controlplane.test_admin import HOOK_TOKEN, TOKEN, Admin, bearer, run

JSON = b"Content-Type: application/json"


async def post(admin: Admin, path: str, body: Any = None, *lines: bytes) -> tuple[int, Any]:
    """Status and body of a POST."""
    text = b"" if body is None else json.dumps(body).encode()
    answer = await admin.ask(path, JSON, b"Content-Length: %d" % len(text), *lines, method=b"POST", body=text)
    return answer.status, json.loads(answer.body)


def known(admin: Admin) -> None:
    """Two backends that take sessions."""
    for name in "ab":
        backend = admin.fleet.add(name, "127.0.0.1", 1, now=0.0)
        admin.fleet.observe(backend, Observation.ANSWERED, 0.0)


def test_the_three_wishes() -> None:
    """drain, maintenance and ready answer with the backend as it is now, and it is so."""

    async def test(admin: Admin) -> None:
        known(admin)
        a = admin.fleet.get("a")
        assert a is not None
        for wish, state in (("drain", "drain"), ("maintenance", "maintenance"), ("ready", "ready")):
            status, body = await post(admin, f"/api/backends/a/{wish}")
            assert (status, body["name"], body["admin_state"]) == (200, "a", state)
            assert a.admin_state is AdminState(state)
            assert (body["drain"] is not None) is (wish == "drain")
            assert json.loads((await admin.ask("/api/backends/a")).body)["admin_state"] == state

    run(test)


@pytest.mark.parametrize("wish", ["drain", "maintenance"])
def test_the_last_one_needs_force(wish: str) -> None:
    """Nobody takes the only backend that takes new sessions by mistake: 409, and nothing has changed."""

    async def test(admin: Admin) -> None:
        known(admin)
        a, b = admin.fleet
        assert (await post(admin, f"/api/backends/b/{wish}"))[0] == 200
        status, told = await post(admin, f"/api/backends/a/{wish}", {"force": False})
        assert (status, "a is the only backend that takes new sessions" in told["detail"]) == (409, True)
        assert a.admin_state is AdminState.READY
        assert (await post(admin, f"/api/backends/b/{wish}"))[0] == 200, "it takes none: nothing is lost"
        status, told = await post(admin, f"/api/backends/a/{wish}", {"force": True})
        assert (status, told["admin_state"], told["takes_sessions"]) == (200, wish, False)
        assert b.admin_state is a.admin_state

    run(test)


def test_one_that_is_down_is_no_other() -> None:
    """What counts is who takes new sessions, not who is configured."""

    async def test(admin: Admin) -> None:
        known(admin)
        a, _ = admin.fleet
        admin.fleet.observe(a, Observation.REFUSED, 1.0)
        assert (await post(admin, "/api/backends/b/drain"))[0] == 409
        assert (await post(admin, "/api/backends/a/drain"))[0] == 200

    run(test)


def test_a_pod_that_goes_is_not_kept() -> None:
    """It says of itself that it goes, and goes anyhow: no force is asked of it, by its token either."""

    async def test(admin: Admin) -> None:
        known(admin)
        for name in "ab":
            body = {"until": "restart", "timeout": 5}
            status, told = await post(admin, f"/api/backends/{name}/drain", body, bearer(HOOK_TOKEN))
            assert (status, told["admin_state"]) == (200, "drain")

    run(test, token=TOKEN)


def test_a_drain_has_a_deadline() -> None:
    """That of the request, else that of the configuration."""

    async def test(admin: Admin) -> None:
        known(admin)
        for body, seconds in ((None, 300), ({}, 300), ({"timeout": None}, 300), ({"timeout": 7.5}, 7.5)):
            _, told = await post(admin, "/api/backends/a/drain", body)
            assert seconds - 2 < told["drain"]["seconds_left"] <= seconds

    run(test)


@pytest.mark.parametrize(
    "body", [{"timeout": -1}, {"timeout": inf}, {"timeout": nan}, {"timeout": "x"}, {"time": 5}, [], "x"]
)
def test_a_drain_that_is_not_understood(body: Any) -> None:
    """422 with the place of the mistake, and nothing changes."""

    async def test(admin: Admin) -> None:
        known(admin)
        status, told = await post(admin, "/api/backends/a/drain", body)
        assert (status, told["detail"][0]["loc"][0]) == (422, "body")
        a = admin.fleet.get("a")
        assert a is not None
        assert a.admin_state is AdminState.READY

    run(test)


@pytest.mark.parametrize("wish", ["drain", "ready", "maintenance"])
def test_a_name_that_nobody_has(wish: str) -> None:
    """404 that names those there are."""

    async def test(admin: Admin) -> None:
        known(admin)
        status, told = await post(admin, f"/api/backends/x/{wish}")
        assert (status, told["detail"]) == (404, "there is no backend 'x'; there are: a, b")

    run(test)


def test_one_that_has_left_is_not_drained_again() -> None:
    """Nothing happens between the look for a backend and what is done to it, however fast it goes."""

    async def test(admin: Admin) -> None:
        drains, over = admin.app.parts.drains, asyncio.Event()

        async def come_and_go() -> None:
            while not over.is_set():
                backend = admin.fleet.add("a", "127.0.0.1", 1, now=0.0)
                drains.drain(backend)
                await asyncio.sleep(0)
                admin.fleet.remove(backend)
                await asyncio.sleep(0)

        coming = asyncio.create_task(come_and_go())
        answers = [await post(admin, "/api/backends/a/drain") for _ in range(60)]
        over.set()
        await coming
        assert {status for status, _ in answers} <= {200, 404, 410}
        assert not drains._drains

    run(test)


def test_one_that_leaves_cannot_be_kept() -> None:
    """It is no more configured, or replaced: 409, and the drain goes on."""

    async def test(admin: Admin) -> None:
        known(admin)
        a = admin.fleet.get("a")
        assert a is not None
        a.leaving = True
        for wish in ("ready", "maintenance"):
            status, told = await post(admin, f"/api/backends/a/{wish}")
            assert (status, "about to leave" in told["detail"]) == (409, True)

    run(test)


def test_a_rollout_needs_replicas() -> None:
    """Only `run` has any: 409 that says so; the state is idle."""

    async def test(admin: Admin) -> None:
        status, told = await post(admin, "/api/rollout")
        assert (status, "only those of `run`" in told["detail"]) == (409, True)
        assert json.loads((await admin.ask("/api/rollout")).body)["state"] == "idle"

    run(test)


def test_changes_need_the_token() -> None:
    """Without it nothing changes."""

    async def test(admin: Admin) -> None:
        known(admin)
        a = admin.fleet.get("a")
        assert a is not None
        for path in ("/api/backends/a/drain", "/api/reload", "/api/rollout"):
            assert (await post(admin, path))[0] == 401
        assert a.admin_state is AdminState.READY
        assert (await post(admin, "/api/backends/a/drain", None, bearer(TOKEN)))[0] == 200

    run(test, token=TOKEN)


def test_the_token_of_hooks_is_good_for_what_they_do() -> None:
    """It drains, makes ready and looks at one backend; 403 tells that it may do no more."""

    async def test(admin: Admin) -> None:
        known(admin)
        hook = bearer(HOOK_TOKEN)
        until = {"until": "restart"}
        status, told = await post(admin, "/api/backends/a/drain", until, hook)
        assert (status, told["drain"]["until_restart"]) == (200, True)
        assert admin.app.parts.prober.awaits_restart(next(iter(admin.fleet)))
        assert (await admin.ask("/api/backends/a", hook)).status == 200
        status, told = await post(admin, "/api/backends/a/ready", until, hook)
        assert (status, told["admin_state"]) == (200, "ready")
        for path in ("/api/backends/a/maintenance", "/api/reload", "/api/rollout"):
            status, told = await post(admin, path, None, hook)
            assert (status, "no more" in told["detail"]) == (403, True), path
        for path in ("/api/backends", "/api/config", "/api/sessions", "/openapi.json"):
            assert (await admin.ask(path, hook)).status == 403, path
        a = admin.fleet.get("a")
        assert a is not None
        assert a.admin_state is AdminState.READY

    run(test, token=TOKEN)


def test_an_app_cannot_move_others_with_its_hooks_token() -> None:
    """It can read the one of its pod: from the address of a backend that moves this backend, and no other."""

    async def test(admin: Admin) -> None:
        hook, until = bearer(HOOK_TOKEN), {"until": "restart"}
        here = admin.fleet.add("here", "127.0.0.1", 1, now=0.0)
        there = admin.fleet.add("there", "127.0.0.9", 1, now=0.0)
        for backend in (here, there):
            admin.fleet.observe(backend, Observation.ANSWERED, 0.0)
        for wish in ("drain", "ready"):
            status, told = await post(admin, f"/api/backends/there/{wish}", until, hook)
            assert (status, "that it comes from" in told["detail"]) == (403, True)
            assert (await post(admin, f"/api/backends/here/{wish}", until, hook))[0] == 200
        assert (await admin.ask("/api/backends/there", hook)).status == 403
        # Nor is it believed that it speaks for somebody else, though it comes from this machine.
        assert (await admin.ask("/api/backends/there", hook, b"X-Forwarded-For: 203.0.113.9")).status == 403
        assert (await post(admin, "/api/backends/there/drain", None, bearer(TOKEN)))[0] == 200
        # Who is down may be where another one is by now; an address without a backend tells nothing.
        admin.fleet.observe(here, Observation.REFUSED, 1.0)
        assert (await post(admin, "/api/backends/there/ready", until, hook))[0] == 200

    run(test, token=TOKEN)


def test_one_that_has_left_is_told_from_one_that_never_was() -> None:
    """410, also to the hook of a pod that discovery finds no more, whoever else is at its address."""

    async def test(admin: Admin) -> None:
        known(admin)
        b = admin.fleet.get("b")
        assert b is not None
        admin.fleet.remove(b)
        for wish in ("drain", "ready"):
            status, told = await post(admin, f"/api/backends/b/{wish}", None, bearer(HOOK_TOKEN))
            assert (status, told["detail"]) == (410, "there is no backend 'b' any more; there are: a")
        assert (await admin.ask("/api/backends/b", bearer(HOOK_TOKEN))).status == 410
        assert (await admin.ask("/api/backends/x", bearer(HOOK_TOKEN))).status == 404

    run(test, token=TOKEN)


def test_a_hook_moves_nothing_that_an_operator_wished() -> None:
    """Whatever it says, its drain ends with a restart, and it ends no other."""

    async def test(admin: Admin) -> None:
        known(admin)
        hook = bearer(HOOK_TOKEN)
        status, told = await post(admin, "/api/backends/a/drain", None, hook)
        assert (status, told["drain"]["until_restart"]) == (200, True)
        assert (await post(admin, "/api/backends/a/ready", None, hook))[1]["admin_state"] == "ready"
        for wish, state in (("drain", "drain"), ("maintenance", "maintenance")):
            await post(admin, f"/api/backends/a/{wish}", None, bearer(TOKEN))
            _, told = await post(admin, "/api/backends/a/ready", {}, hook)
            assert told["admin_state"] == state

    run(test, token=TOKEN)


def test_a_pod_that_is_back_ends_its_own_drain_alone() -> None:
    """`ready` until a restart leaves an operator's wish as it is."""

    async def test(admin: Admin) -> None:
        known(admin)
        for wish, state in (("drain", "drain"), ("maintenance", "maintenance")):
            await post(admin, f"/api/backends/a/{wish}")
            status, told = await post(admin, "/api/backends/a/ready", {"until": "restart"})
            assert (status, told["admin_state"]) == (200, state)

    run(test)
