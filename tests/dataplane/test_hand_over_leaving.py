"""A client or the proxy that leaves while a session is handed over: nothing is left anywhere."""

import pytest

from proxy.dataplane.hand_over_counts import Reason, Result
from tests.dataplane.shared_chat import ASK, Case, play

STEPS = ["upgrade", "hello", "restore", "resume", "again"]
ALL = [*((step, False) for step in STEPS), *((step, True) for step in ["part", *STEPS])]


@pytest.mark.parametrize("how", ["reset", "farewell"])
@pytest.mark.parametrize(("step", "planned"), ALL)
def test_the_client_leaves_meanwhile(step: str, planned: bool, how: str) -> None:
    """At any step: nothing is left of it anywhere."""

    async def test(case: Case) -> None:
        case.chats["a"].echo = False
        case.socket.say(ASK)
        await case.world.until(lambda: len(case.tunnel.untaken) == 1)
        gates = [case.chats[name].hold(step) for name in "ab"]
        if planned:
            case.send_away()
        else:
            case.kill()
        if step == "upgrade":
            await case.world.until(lambda: case.chats["b"].asked("upgrade"))
        else:
            await case.world.until(lambda: case.asked(step))
        if how == "reset":
            case.socket.peer.reset()
        else:
            case.socket.say(b"41")
            case.socket.say((1001).to_bytes(2, "big"), opcode=8)
            case.socket.peer.close()
        await case.world.breathe()
        for gate in gates:
            gate.set()
        await case.world.until(lambda: not case.world.plane.tunnels)
        await case.world.until(lambda: sum(case.world.plane.site.hand_overs.counts.results.values()) == 1)
        case.nothing_is_left()
        assert all(known.tunnels == 0 for known in case.world.router.fleet)

    play(test, linger=0)


def test_the_client_leaves_at_once() -> None:
    """Before anything was done for it."""

    async def test(case: Case) -> None:
        assert case.tunnel.backend_gone()
        case.tunnel.close()
        await case.gone(Reason.LOST, Result.LEFT)

    play(test)


@pytest.mark.parametrize(("step", "planned"), ALL)
def test_the_proxy_ends_meanwhile(step: str, planned: bool) -> None:
    """At any step: everything is closed, and nobody waits."""

    async def test(case: Case) -> None:
        case.chats["a"].echo = False
        case.socket.say(ASK)
        await case.world.until(lambda: len(case.tunnel.untaken) == 1)
        for name in "ab":
            case.chats[name].hold(step)
        if planned:
            case.send_away()
        else:
            case.kill()
        if step == "upgrade":
            await case.world.until(lambda: case.chats["b"].asked("upgrade"))
        else:
            await case.world.until(lambda: case.asked(step))
        await case.world.stop()
        await case.world.until(lambda: not case.world.plane.tunnels)
        case.nothing_is_left()

    play(test)
