"""Playbooks of the opening of a websocket: what is given, and what is expected for it.

A line `>>` is an event, the lines `<<` behind it are the actions that it has to cause, all of them. What is
said on the websocket stands as text; `client` and `backend` are a message each, with `(binary)`, `(ping)` or
`(pong)` before one that is no text. `run` plays a book with every message in one piece, or cut as it is told.
"""

from collections.abc import Callable, Iterator

from proxy.affinity.actions import (
    Action,
    Ask,
    Close,
    Connected,
    Hold,
    Open,
    Refuse,
    Refused,
    Settle,
    ToBackend,
    ToClient,
)
from proxy.affinity.opening import Opening
from proxy.affinity.rehome import Said
from proxy.errors import Limit
from proxy.wire.websocket import BINARY, PING, PONG, TEXT, FrameReader, client_frame, server_frame

OPCODES = {"(binary)": BINARY, "(ping)": PING, "(pong)": PONG}
WORDS = {opcode: word for word, opcode in OPCODES.items()}
Cut = Callable[[bytes], list[bytes]]


def whole(data: bytes) -> list[bytes]:
    """In one piece."""
    return [data]


def in_bytes(data: bytes) -> list[bytes]:
    """One byte at a time."""
    return [data[at : at + 1] for at in range(len(data))]


def run(
    book: str,
    *,
    upgrade: bool = False,
    connected: bool = False,
    frames: int = 64,
    size: int = 1 << 18,
    cut: Cut = whole,
) -> Opening:
    """Play a book; raises AssertionError at the first event that has other consequences."""
    machine = Opening(Said(frames, size, opened=upgrade), upgrade=upgrade, connected=connected)
    done = []
    for given, expected in steps(book):
        seen = list(_words(_play(machine, given, cut)))
        done.append(f">> {given}")
        assert seen == expected, "\n".join([*done, f"expected {expected}", f"but saw  {seen}"])
    return machine


def steps(book: str) -> Iterator[tuple[str, list[str]]]:
    """The events of a book, each with the actions that it has to cause."""
    given, expected = "", list[str]()
    for line in filter(None, map(str.strip, book.splitlines())):
        mark, _, text = line.partition(" ")
        assert mark in {">>", "<<"}, line
        if mark == "<<":
            expected.append(text)
            continue
        if given:
            yield given, expected
        given, expected = text, []
    yield given, expected


def _play(machine: Opening, given: str, cut: Cut) -> list[Action]:
    event, _, text = given.partition(" ")
    if event in {"client", "backend"}:
        say = machine.client if event == "client" else machine.backend
        return [action for piece in cut(message(text, client=event == "client")) for action in say(piece)]
    if event == "opened":
        return machine.opened(message(text, client=False) if text else b"")
    if event == "settled":
        return machine.settled(resumes=text == "and resumes")
    events = {"stays": machine.stays, "moves": machine.moves, "moved": machine.moved, "late": machine.late}
    return events[event]()


def message(text: str, *, client: bool) -> bytes:
    """The frame that says it; `several | messages` are said at once, and `+` begins fragments."""
    frame = client_frame if client else server_frame
    said = b""
    for part in text.split(" | "):
        word, _, rest = part.partition(" ")
        opcode, payload = (OPCODES[word], rest) if word in OPCODES else (TEXT, part)
        if payload.startswith("+"):
            pieces = [piece.encode() for piece in payload[1:].split("+")]
            frames = [bytearray(frame(0 if at else opcode, piece)) for at, piece in enumerate(pieces)]
            for fragment in frames[:-1]:
                fragment[0] &= 0x7F
            said += b"".join(frames)
        else:
            said += frame(opcode, payload.encode())
    return said


def _words(actions: list[Action]) -> Iterator[str]:
    for action in actions:
        match action:
            case ToClient(data):
                yield from (f"client {text}" for text in texts(data))
            case ToBackend(data):
                yield from (f"backend {text}" for text in texts(data))
            case Ask(session_id):
                yield f"ask {session_id}"
            case Open(fresh):
                yield "open as new" if fresh else "open for its sid"
            case Hold(on):
                yield "hold" if on else "read on"
            case Connected():
                yield "connected"
            case Refused():
                yield "refused"
            case Settle(to_backend, to_client, answered):
                rests = {"backend": list(texts(to_backend)), "client": list(texts(to_client))}
                rest = [f"{side} {' | '.join(said)}" for side, said in rests.items() if said]
                yield ", ".join(["plain", *rest, *(["answered here"] if answered else [])])
            case Refuse(why):
                yield f"refuse {why.value if isinstance(why, Limit) else why.odd.value}"
            case Close():
                yield "close"


def texts(data: bytes) -> Iterator[str]:
    """What frames say; fragments with a + before each, and the start of one that is not whole as `...`."""
    reader = FrameReader()
    reader.push(data)
    fragments = ""
    while (frame := reader.next()) is not None:
        said = frame.payload.decode()
        if not frame.final or frame.opcode == 0:
            fragments += f"+{said}"
            said = fragments
        if frame.final:
            fragments = ""
            yield f"{WORDS[frame.opcode]} {said}".rstrip() if frame.opcode in WORDS else said
    if reader.rest or fragments:
        yield "..."
