from proxy.affinity.placement import Placement
from proxy.controlplane.rebalance import Rebalance
from tests.controlplane.scripted_moves import ScriptedMoves, healthy_fleet


def house(*names: str, on: int) -> tuple[Rebalance, ScriptedMoves]:
    """Backends of which all but the last hold so many sessions each."""
    fleet, moves = healthy_fleet(*names), ScriptedMoves()
    for backend in list(fleet)[:-1]:
        moves.open(backend, on)
    return Rebalance(fleet, Placement(), moves, on=True), moves


def test_a_new_backend_gets_its_share_in_small_steps() -> None:
    """Never more than five at once, only such as its hash prefers, and no more than its share."""
    rebalance, moves = house("a", "b", "c", on=60)
    fleet = {backend.name: backend for backend in rebalance._fleet}
    steps = 0
    while moved := rebalance.step(0.0):
        assert moved <= 5
        for session in moves.gone[-moved:]:
            able = list(fleet.values())
            assert next(rebalance._placement.preference(session.id.encode(), able, 0.0)) is fleet["c"]
            session.backend = fleet["c"]
            moves.sessions.append(session)
            fleet["c"].sessions += 1
        steps += 1
        assert steps < 100
    assert 30 <= fleet["c"].sessions <= 40
    assert rebalance.moved == fleet["c"].sessions


def test_nobody_moves_who_is_answered_or_has_left_it_before() -> None:
    """A busy session stays, and so does one that moved away from that backend."""
    rebalance, moves = house("a", "b", on=40)
    moves.busy = set(moves.sessions[:20])
    for session in moves.sessions[20:]:
        session.left = ("b",)
    assert rebalance.step(0.0) == 0


def test_an_even_fleet_is_left_alone() -> None:
    """Nearly even is even enough; so is a fleet without sessions, and one of a single backend."""
    rebalance, moves = house("a", "b", "c", on=60)
    moves.open(list(rebalance._fleet)[-1], 56)
    assert rebalance.step(0.0) == 0
    assert house("a", "b", on=0)[0].step(0.0) == 0
    assert house("a", on=9)[0].step(0.0) == 0
