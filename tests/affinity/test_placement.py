"""Placement: rendezvous hashing with weights, bounded load and slow start."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.health import HealthRules, Observation
from proxy.affinity.placement import Placement
from tests.affinity.making import backend_of, fleet_of, kill, revive, silence

NAMES = st.lists(st.text("abcXYZ019._:-", min_size=1, max_size=63), min_size=2, max_size=8, unique=True)
KEYS = st.lists(st.binary(max_size=20), min_size=1, max_size=40, unique=True)
UNBOUND = 1e9


def first(keys: list[bytes], backends: list[Backend], bound: float = UNBOUND) -> list[str]:
    """Where each key goes, alone."""
    placed = [Placement(bound).place(key, backends, 0.0) for key in keys]
    return [backend.name for backend in placed if backend is not None]


@given(NAMES, KEYS, st.data())
def test_only_the_lost_backends_keys_move(names: list[str], keys: list[bytes], data: st.DataObject) -> None:
    """A backend that leaves moves its own keys, and one that comes takes keys but moves no others."""
    backends = list(fleet_of(*names))
    lost = data.draw(st.sampled_from(backends))
    before = first(keys, backends)
    after = first(keys, [backend for backend in backends if backend is not lost])
    assert all(now == then for then, now in zip(before, after, strict=True) if then != lost.name)
    assert lost.name not in after


@given(NAMES, KEYS, st.randoms(use_true_random=False))
def test_order_does_not_matter(names: list[str], keys: list[bytes], shuffled: random.Random) -> None:
    """Proxies that list the same backends in any order agree."""
    backends = list(fleet_of(*names))
    other = backends.copy()
    shuffled.shuffle(other)
    assert first(keys, backends) == first(keys, other)
    for key in keys:
        preferred = [backend.name for backend in Placement().preference(key, backends, 0.0)]
        assert preferred == [backend.name for backend in Placement().preference(key, other, 0.0)]
        assert sorted(preferred) == sorted(names)


@given(NAMES, st.binary(max_size=20))
def test_the_next_of_a_preference_is_where_a_key_goes_without_the_first(names: list[str], key: bytes) -> None:
    """Selection is a preference: whoever is lost, a key goes to the next that is there."""
    backends = list(fleet_of(*names))
    for backend in Placement().preference(key, backends.copy(), 0.0):
        assert first([key], backends) == [backend.name]
        backends.remove(backend)


def test_long_names_that_begin_alike_are_different() -> None:
    """Names of pods share long beginnings."""
    backends = [Backend("a" * 70 + end, "127.0.0.1", 1) for end in "xyz"]
    won = Counter(next(Placement().preference(b"%d" % n, backends, 0.0)).name[-1] for n in range(300))
    assert min(won["x"], won["y"], won["z"]) > 60


# weights of the backends
WEIGHTS = [(1.0, 1.0, 1.0), (1.0, 2.0, 3.0), (0.5, 10.0, 2.5), (100.0, 1.0)]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_weights_are_kept(weights: tuple[float, ...]) -> None:
    """Of 6,000 keys each backend gets its share, within four standard deviations."""
    keys = 6000
    fleet = fleet_of()
    for at, weight in enumerate(weights):
        backend = fleet.add(f"b{at}", "127.0.0.1", 8001, weight=weight, now=0.0)
        fleet.observe(backend, Observation.ANSWERED, 0.0)
    won = Counter(first([b"key-%d" % n for n in range(keys)], list(fleet)))
    for at, weight in enumerate(weights):
        share = weight / sum(weights)
        assert abs(won[f"b{at}"] - keys * share) <= 4 * math.sqrt(keys * share * (1 - share))


@settings(max_examples=50)
@given(
    st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=2, max_size=5),
    st.sampled_from([1.01, 1.25, 2.0]),
    st.integers(1, 150),
    st.booleans(),
)
def test_no_backend_is_above_the_bound(weights: list[float], bound: float, many: int, reserve: bool) -> None:
    """After each placement every load is at most `bound` times the backend's share of all, rounded up."""
    fleet = fleet_of()
    for at, weight in enumerate(weights):
        backend = fleet.add(f"b{at}", "127.0.0.1", 8001, weight=weight, now=0.0)
        fleet.observe(backend, Observation.ANSWERED, 0.0)
    placement = Placement(bound)
    load: Counter[str] = Counter()
    for at in range(many):
        placed = placement.place(b"k%d" % at, fleet, 0.0, reserve=reserve)
        assert placed is not None
        load[placed.name] += 1
        if not reserve:
            placed.sessions += 1
        for backend in fleet:
            assert load[backend.name] <= math.ceil(bound * (at + 1) * backend.weight / sum(weights))


@pytest.mark.parametrize("late", [0, 1, 7])
def test_what_has_arrived_is_counted_once(late: int) -> None:
    """A place is held for a session until that counts itself, or the bound would hold for twice as many."""
    fleet = fleet_of("a", "b", "c")
    placement = Placement()
    under_way: list[Backend] = []
    for at in range(300):
        placed = placement.place(b"k%d" % at, fleet, at / 100, reserve=True)
        assert placed is not None
        under_way.append(placed)
        if len(under_way) > late:
            come = under_way.pop(0)
            come.sessions += 1
            come.arrived += 1
        total = sum(map(placement._load, fleet))
        assert total <= at + 1 + 3  # of each backend the last that came
        assert max(map(placement._load, fleet)) <= math.ceil(1.25 * (total + 1) / 3)


def test_a_full_backend_gives_its_keys_to_the_next() -> None:
    """A key whose first choice is full goes to its second, and back when there is room again."""
    fleet = fleet_of("a", "b", "c")
    key = next(k for k in (b"%d" % n for n in range(100)) if first([k], list(fleet)) == ["a"])
    second = [backend.name for backend in Placement().preference(key, fleet, 0.0)][1]
    backend_of(fleet, "a").sessions = 9
    assert first([key], list(fleet), 1.25) == [second]
    backend_of(fleet, "a").sessions = 0
    assert first([key], list(fleet), 1.25) == ["a"]


def test_parallel_first_requests_of_a_browser_agree() -> None:
    """Up to six requests of one key within seconds go to one backend, though each counts as load."""
    for key in (b"%d" % n for n in range(50)):
        fleet = fleet_of("a", "b", "c")
        placement = Placement(1.01)
        went = {placement.place(key, fleet, at / 10, reserve=True) for at in range(6)}
        assert len(went) == 1


def test_one_address_with_many_browsers_is_spread() -> None:
    """A hundred handshakes of one key in a second are an office: the bound holds for them."""
    fleet = fleet_of("a", "b", "c", "d")
    placement = Placement(1.25)
    won = Counter(placement.place(b"office", fleet, at / 100, reserve=True) for at in range(100))
    assert max(won.values()) <= math.ceil(1.25 * 25)


def test_reservations_and_memories_pass() -> None:
    """Five seconds later what was placed counts by its session only, and the key is placed anew."""
    fleet = fleet_of("a", "b")
    placement = Placement(1.01)
    for at in range(6):
        placement.place(b"k", fleet, at / 10, reserve=True)
    busy = placement.place(b"k", fleet, 0.5)
    assert busy is not None
    busy.sessions = 6
    assert placement.place(b"k", fleet, 4.9) is busy
    assert placement.place(b"k", fleet, 5.0) is not busy
    busy.sessions = 0
    assert placement.place(b"other", fleet, 60.0, reserve=True) is not None
    assert placement.place(b"k", fleet, 60.0) is not None


def test_a_key_does_not_go_again_to_one_that_takes_nothing() -> None:
    """What a key remembers is void when its backend stops taking sessions."""
    for happened in (kill, silence):
        fleet = fleet_of("a", "b")
        placement = Placement()
        went = placement.place(b"k", fleet, 0.0)
        assert went is not None
        happened(fleet, went.name)
        other = placement.place(b"k", fleet, 1.0)
        assert other is not None
        assert other is not went


def test_only_those_that_take_sessions_are_chosen() -> None:
    """Degraded, down, drained and gone backends get nothing new; if all are, nobody is chosen."""
    fleet = fleet_of("a", "b", "c", "d", "e")
    kill(fleet, "a")
    silence(fleet, "b")
    fleet.set_admin_state(backend_of(fleet, "c"), AdminState.DRAIN)
    gone = backend_of(fleet, "d")
    fleet.remove(gone)
    everyone = [*fleet, gone]
    assert set(first([b"%d" % n for n in range(50)], everyone)) == {"e"}
    fleet.set_admin_state(backend_of(fleet, "e"), AdminState.MAINTENANCE)
    assert Placement().place(b"k", everyone, 1.0) is None
    assert Placement().place(b"k", [], 1.0) is None


@given(NAMES, st.binary(max_size=20), st.data())
def test_avoided_backends_come_last(names: list[str], key: bytes, data: st.DataObject) -> None:
    """Whom a key avoids it gets only when there is nobody else."""
    fleet = fleet_of(*names)
    avoid = data.draw(st.sets(st.sampled_from(names)))
    placed = Placement(UNBOUND).place(key, fleet, 0.0, avoid=avoid)
    assert placed is not None
    assert (placed.name in avoid) == (avoid == set(names))


@given(NAMES, st.binary(max_size=20), st.data())
def test_outdated_backends_come_after_the_others(names: list[str], key: bytes, data: st.DataObject) -> None:
    """During a rollout a key gets a backend that stays, one that it avoids only when there is nobody else."""
    fleet = fleet_of(*names)
    avoid = data.draw(st.sets(st.sampled_from(names)))
    outdated = data.draw(st.sets(st.sampled_from(names)))
    for name in outdated:
        backend_of(fleet, name).outdated = True
    placed = Placement(UNBOUND).place(key, fleet, 0.0, avoid=avoid)
    assert placed is not None
    candidates = set(names) - avoid or set(names)
    assert placed.name in (candidates - outdated or candidates)


def test_slow_start() -> None:
    """A backend that came back gets a tenth of its share at first, all of it after `slow_start` seconds."""
    fleet = fleet_of("a", "b")
    kill(fleet, "a", 1.0)
    revive(fleet, "a", 100.0)
    shares = []
    for now in (100.0, 105.0, 110.0):
        placement = Placement(UNBOUND, slow_start=10.0)
        won = Counter(placement.place(b"%d" % n, fleet, now) for n in range(2000))
        shares.append(won[backend_of(fleet, "a")] / 2000)
    assert shares == pytest.approx([0.1 / 1.1, 0.5 / 1.5, 0.5], abs=0.04)


def test_slow_start_can_be_none() -> None:
    """With 0 a backend that came back gets its full share at once."""
    fleet = fleet_of("a", "b")
    kill(fleet, "a", 1.0)
    revive(fleet, "a", 100.0)
    placement = Placement(UNBOUND, slow_start=0.0)
    won = Counter(placement.place(b"%d" % n, fleet, 100.0) for n in range(2000))
    assert won[backend_of(fleet, "a")] == pytest.approx(1000, abs=100)


def test_memory_is_bounded() -> None:
    """However many keys come at once, few are remembered."""
    fleet = fleet_of("a", "b")
    placement = Placement()
    for at in range(5000):
        placement.place(b"%d" % at, fleet, 0.0, reserve=True)
    assert len(placement._recent) == 4096
    placement.place(b"late", fleet, 10.0)
    assert not placement._reserved
    assert not placement._arrived


def test_one_that_answers_nothing_for_a_moment_gets_nobody_new() -> None:
    """Half a second after it was asked, without a probe that failed; also a key that went there just now."""
    fleet = fleet_of("a", "b", "c")
    keys = [b"%d" % n for n in range(50)]
    quiet = backend_of(fleet, "b")

    def gets_some(now: float) -> bool:
        return quiet in {Placement(UNBOUND).place(key, fleet, now) for key in keys}

    placement = Placement(UNBOUND)
    went = next(key for key in keys if placement.place(key, fleet, 1.0, reserve=True) is quiet)
    for _ in range(3):
        quiet.asked(1.0)
    assert gets_some(1.4)
    assert placement.place(went, fleet, 1.4, reserve=True) is quiet
    assert not gets_some(1.6)
    assert placement.place(went, fleet, 1.6, reserve=True) is not quiet
    quiet.answered(1.7)  # one of them, so it was only slow: the others begin anew to be late
    assert gets_some(2.1)
    assert not gets_some(2.3)
    quiet.given_up()
    quiet.given_up()
    assert gets_some(2.3)


def test_a_standstill_of_the_proxy_makes_nobody_quiet() -> None:
    """It was we who did not read the answers."""
    fleet = fleet_of("a")
    backend = backend_of(fleet, "a")
    backend.asked(1.0)
    fleet.stood(5.0)
    assert not backend.is_quiet(6.4)
    assert backend.is_quiet(6.6)


def test_one_whose_last_probe_failed_gets_nobody_new() -> None:
    """It is healthy until `fall` of them have failed in a row."""
    fleet = fleet_of("a", "b")
    fleet.set_rules(HealthRules(fall=3, rise=1))
    silence(fleet, "a")
    assert backend_of(fleet, "a").takes_sessions
    assert {placed.name for n in range(20) if (placed := Placement().place(b"%d" % n, fleet, 1.0))} == {"b"}


def test_where_all_are_quiet_they_are_used() -> None:
    """Better late than never."""
    fleet = fleet_of("a", "b")
    for backend in fleet:
        backend.asked(0.0)
    assert Placement().place(b"k", fleet, 5.0) is not None


def test_what_is_not_answered_is_load() -> None:
    """A burst goes past one that is behind, before it is late."""
    fleet = fleet_of("a", "b")
    placement = Placement(1.01)
    behind = backend_of(fleet, "a")
    for _ in range(20):
        behind.asked(0.0)
    assert {placement.place(b"%d" % n, fleet, 0.1) for n in range(10)} == {backend_of(fleet, "b")}
