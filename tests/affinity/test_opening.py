"""The opening of a websocket: who connects where, what is said again, and what is too much."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.affinity.actions import Action, Ask, Close, Connected, Hold, Refuse, Settle, ToBackend
from proxy.affinity.opening import Opening, State
from proxy.affinity.rehome import Said
from proxy.errors import Limit
from proxy.wire.websocket import PONG, TEXT, client_frame, server_frame
from tests.affinity.books import BOOKS
from tests.affinity.playbook import in_bytes, run

NAMES = [name for name, _, _ in BOOKS]


@pytest.mark.parametrize(("upgrade", "book"), [book[1:] for book in BOOKS], ids=NAMES)
def test_books(upgrade: bool, book: str) -> None:
    """Given these messages, exactly these actions."""
    run(book, upgrade=upgrade)


@pytest.mark.parametrize(("upgrade", "book"), [book[1:] for book in BOOKS], ids=NAMES)
def test_books_byte_by_byte(upgrade: bool, book: str) -> None:
    """However the bytes are cut, the same actions; only what is left over to the tunnel may come later."""
    if ", client" not in book:
        run(book, upgrade=upgrade, cut=in_bytes)


@given(st.data())
def test_books_in_random_pieces(data: st.DataObject) -> None:
    """The same for any pieces."""
    _, upgrade, book = data.draw(st.sampled_from([book for book in BOOKS if ", client" not in book[2]]))

    def cut(said: bytes) -> list[bytes]:
        at = sorted(data.draw(st.sets(st.integers(1, len(said) - 1), max_size=6))) if len(said) > 1 else []
        return [said[start:end] for start, end in zip([0, *at], [*at, len(said)], strict=True)]

    run(book, upgrade=upgrade, cut=cut)


OPENED = """
    >> backend 0{"sid":"a"}
    << client 0{"sid":"a"}
    """


@pytest.mark.parametrize(
    ("before", "end"),
    [
        ("", "refuse opening"),
        (
            """
            >> client 40/admin,
            << backend 40/admin,
            >> backend 44/admin,{}
            << client 44/admin,{}
            """,
            "refuse opening",
        ),
        (
            """
            >> client 40/admin,
            << backend 40/admin,
            """,
            "plain",
        ),
        (
            """
            >> client 40/admin,
            << backend 40/admin,
            >> backend 40/admin,{}
            << client 40/admin,{}
            """,
            "plain",
        ),
    ],
    ids=["nothing connects", "refused", "not answered yet", "another namespace"],
)
def test_time_is_up(before: str, end: str) -> None:
    """Who connects nowhere is refused; an app's own namespace alone is no offence, but is watched no more."""
    run(f"{OPENED}{before}\n>> late\n<< {end}")


@pytest.mark.parametrize(
    ("said", "end"),
    [("2probe\n>> backend 3probe\n<< client 3probe", "refuse opening"), ("2probe | 5", "plain")],
    ids=["no upgrade", "upgraded"],
)
def test_time_is_up_for_an_upgrade(said: str, end: str) -> None:
    """A transport that was upgraded may have connected by polls, at another proxy."""
    said, _, answer = said.partition("\n")
    heard = "\n".join(f"<< backend {packet}" for packet in said.split(" | "))
    run(f">> client {said}\n{heard}\n{answer}\n>> late\n<< {end}", upgrade=True)


def test_nobody_is_late_while_the_backend_is() -> None:
    """Nobody can connect before its OPEN or its answer to a probe, and a CONNECT on its way is not late."""
    run(f">> late{OPENED}>> late\n<< refuse opening")
    run(
        """
        >> client 2probe
        << backend 2probe
        >> late
        >> backend 3probe
        << client 3probe
        >> late
        << refuse opening
        """,
        upgrade=True,
    )
    run(
        """
        >> client 40{"sessionId":"session-S"}
        << ask session-S
        >> late
        >> moves
        << open as new
        >> late
        >> opened
        << backend 40{"sessionId":"session-S"}
        >> late
        """
    )


def test_pongs_are_counted_and_not_kept() -> None:
    """A client that says nothing but pongs is refused at the bound, and nothing of it is held."""
    machine = Opening(Said(16, 1 << 18, opened=False), upgrade=False)
    actions = machine.client(client_frame(PONG, b"x" * 10) * 1000)
    assert [type(action) for action in actions] == [ToBackend] * 17 + [Refuse]
    assert actions[-1] == Refuse(Limit.OPENING_FRAMES)


def test_bytes_are_bounded() -> None:
    """Whether it is many messages, a long one, or one in many fragments."""
    for said in (client_frame(TEXT, b"3" * 50) * 20, client_frame(TEXT, b"4" * 1000)):
        assert Opening(Said(64, 800, opened=False), upgrade=False).client(said)[-1] == Refuse(
            Limit.OPENING_BYTES
        )
    piece = bytearray(client_frame(TEXT, b"4" * 100))
    piece[0] &= 0x7F
    rest = bytearray(client_frame(0, b"4" * 100))
    rest[0] &= 0x7F
    machine = Opening(Said(64, 800, opened=False), upgrade=False)
    assert machine.client(bytes(piece) + bytes(rest) * 20) == [Refuse(Limit.OPENING_BYTES)]


def test_who_is_over_a_bound_beside_an_own_namespace_is_watched_no_more() -> None:
    """It goes on where it is, with what it said."""
    book = """
        >> client 40/admin,
        << backend 40/admin,
        >> backend 40/admin,{}
        << client 40/admin,{}
        >> client 42/admin,["1"] | 42/admin,["2"] | 42/admin,["3"]
        << backend 42/admin,["1"]
        << backend 42/admin,["2"]
        << plain, backend 42/admin,["3"]
        """
    run(book, frames=2)


def test_a_client_is_held_while_its_session_is_found() -> None:
    """What it says meanwhile waits, to the bound; beyond it is not read, and then read on."""
    machine = Opening(Said(64, 1000, opened=False), upgrade=False)
    run_in = machine.client(client_frame(TEXT, b'40{"sessionId":"session-S"}'))
    assert len(run_in) == 1
    more = client_frame(TEXT, b'42["x"]')
    seen = [str(action) for _ in range(200) for action in machine.client(more)]
    assert seen == ["Hold(on=True)"]
    assert machine.moves()
    opened = [str(action) for action in machine.opened(b"")]
    assert "Hold(on=False)" not in opened  # the CONNECT is on its way, and the client over the bound
    end = machine.backend(b"\x81\x0440{}")
    assert [type(action).__name__ for action in end] == ["ToClient", "Connected", "Hold", "Settle"]
    assert isinstance(end[-1], Settle)
    assert machine.state is State.DONE


def test_a_long_message_behind_a_connect_waits_for_its_answer() -> None:
    """It is no offence: it is passed on unread by then."""
    machine = Opening(Said(64, 1000, opened=False), upgrade=False)
    machine.client(client_frame(TEXT, b"40"))
    long = client_frame(TEXT, b'42["' + b"x" * 2000 + b'"]')
    assert [str(action) for action in machine.client(long)] == ["Hold(on=True)"]
    end = machine.backend(b"\x81\x0240")
    assert isinstance(end[-1], Settle)
    assert end[-1].to_backend == long


def test_what_waits_for_an_answer_to_connect_is_heard_when_it_is_refused() -> None:
    """Who is over a bound then is told at once, and anybody else is read on."""
    connect = """
        >> client 40{"sessionId":"session-S"}
        << ask session-S
        >> stays
        << backend 40{"sessionId":"session-S"}
        """
    book = f"""
        {connect}
        >> client 42["1"] | 42["2"] | 42["3"]
        << backend 42["1"]
        << backend 42["2"]
        >> backend 44{{}}
        << client 44{{}}
        << refused
        << backend 42["3"]
        << refuse opening_frames
        """
    run(book, frames=2)
    book = f"""
        {connect}
        >> client 42["{"x" * 100}"]
        << hold
        >> backend 44{{}}
        << client 44{{}}
        << refused
        << read on
        << refuse opening_bytes
        """
    run(book, size=80)


@pytest.mark.parametrize("broken", [b"\xc1\x80\0\0\0\0", b"\x80\x81\0\0\0\0x", b"\x01\x80\0\0\0\0" * 2])
def test_what_is_no_websocket_ends(broken: bytes) -> None:
    """Reserved bits, and fragments of nothing."""
    machine = Opening(Said(64, 1000, opened=False), upgrade=False)
    assert [str(action) for action in machine.client(broken)] == ["Close()"]
    assert [str(action) for action in machine.client(b"more")] == []


def test_a_long_message_of_a_backend_is_passed_on_unread() -> None:
    """An app's own namespace may be told much; who has to be spared an answer is closed."""
    long = b"\x81\x7f" + (1 << 21).to_bytes(8, "big") + b"x"
    machine = Opening(Said(64, 1000, opened=False), upgrade=False)
    (end,) = machine.backend(long)
    assert isinstance(end, Settle)
    assert end.to_client == long
    machine = Opening(Said(64, 1000, opened=False), upgrade=False)
    machine.backend(b"\x81\x020{")
    machine.client(client_frame(TEXT, b'40{"sessionId":"session-S"}'))
    machine.moves()
    machine.opened(b"")
    assert [str(action) for action in machine.backend(long)] == ["Close()"]


PACKETS = st.sampled_from(
    [
        b"2probe",
        b"3probe",
        b"5",
        b"3",
        b"0{}",
        b"40",
        b"40{}",
        b"44{}",
        b"41",
        b"40/admin,",
        b"40/admin,{}",
        b"44/admin,{}",
        b"42/admin,1[]",
        b"43/admin,1[]",
        b"451-/admin,[]",
        b'42["x"]',
        b'40{"sessionId":"session-S"}',
        b'40{"sessionId":"../x"}',
        b"",
        b"\xff",
    ]
)
EVENTS = st.one_of(
    st.tuples(st.sampled_from(["client", "backend"]), PACKETS),
    st.tuples(
        st.sampled_from(["stays", "moves", "moved", "opened", "settled", "resumes", "late"]), st.just(b"")
    ),
    st.tuples(st.sampled_from(["raw client", "raw backend"]), st.binary(max_size=20)),
)


@given(st.lists(EVENTS, max_size=30), st.booleans(), st.booleans())
def test_any_story(story: list[tuple[str, bytes]], upgrade: bool, connected: bool) -> None:
    """Whatever happens in whatever order: no exception, one end, nothing behind it, and an honest state."""
    machine = Opening(Said(12, 400, opened=upgrade), upgrade=upgrade, connected=upgrade and connected)
    seen: list[Action] = []
    for event, packet in story:
        match event:
            case "client":
                seen += machine.client(client_frame(TEXT, packet))
            case "backend":
                seen += machine.backend(server_frame(TEXT, packet))
            case "raw client":
                seen += machine.client(packet)
            case "raw backend":
                seen += machine.backend(packet)
            case "opened":
                seen += machine.opened(b"") if machine.state is State.MOVING else []
            case "settled" | "resumes":
                seen += machine.settled(resumes=event == "resumes") if upgrade else []
            case _:
                seen += getattr(machine, event)()
    ends = [at for at, action in enumerate(seen) if isinstance(action, (Settle, Refuse, Close))]
    assert ends in ([], [len(seen) - 1])
    assert (machine.state is State.DONE) is bool(ends)
    holds = [action.on for action in seen if isinstance(action, Hold)]
    assert holds == [at % 2 == 0 for at in range(len(holds))]
    assert not (holds and holds[-1] and ends)
    taken = sum(isinstance(action, Connected) for action in seen)
    asked = sum(isinstance(action, (ToBackend, Ask)) for action in seen)
    assert taken <= (1 if upgrade else min(1, asked))  # a poll may have asked
