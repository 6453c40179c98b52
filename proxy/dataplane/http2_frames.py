"""The frames of one HTTP/2 connection: hyper's h2, with what it leaves to its user, and nothing of streams.

Frames, compression, windows and what is allowed when are the library's. Here are the sizes that a client is
offered, when windows are opened again, and where the library knows less than we have to: whether it waits for
more of a frame, and that after GOAWAY the streams go on (RFC 9113 section 6.8).
"""

from contextlib import suppress
from functools import partialmethod

from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import Event
from h2.exceptions import DenialOfServiceError, ProtocolError
from h2.settings import SettingCodes, Settings
from hpack import Encoder
from hpack.exceptions import HPACKError
from hyperframe.frame import GoAwayFrame, SettingsFrame

from proxy.config.sections import LimitSettings
from proxy.errors import Limit
from proxy.wire.http2 import FieldList, Progress

WINDOW = 262_144  # bytes of a stream: an upload over 50 ms takes 5 MB/s
_ALL_WINDOWS = 1 << 20  # bytes of a connection: opened again at once, so that no stream stops the others
_INITIAL = 65_535  # bytes: RFC 9113 section 6.9.2
_FRAME = 16_384  # bytes of a body that one stream says before it is another's turn
_LARGEST = (1 << 32) - 1  # value of a setting: RFC 9113 section 6.5.1
_TABLE = 4096  # bytes of our encoder's table, whatever a client would allow
_MOST_CLOSED = 1024  # streams that have ended and may still be spoken of: each poll is one
_CONFIG = H2Configuration(
    client_side=False,
    header_encoding=None,
    validate_outbound_headers=False,  # they were parsed strictly, or are ours
    normalize_outbound_headers=False,
)
_Library = type("_Library", (H2Connection,), {"MAX_CLOSED_STREAMS": _MOST_CLOSED})
# Huffman code would spare a fifth of a head, and take as long as all the rest of it, 9 ms for 10 KB.
_Encoder = type("_Encoder", (Encoder,), {"encode": partialmethod(Encoder.encode, huffman=False)})


def refusal(limit: Limit) -> bytes:
    """What a connection that is one too many is told before anything is read of it (section 3.4)."""
    goaway = GoAwayFrame(error_code=ErrorCodes.ENHANCE_YOUR_CALM, additional_data=limit.value.encode())
    return SettingsFrame().serialize() + goaway.serialize()


def _is_compression(error: ProtocolError) -> bool:
    """Whether a block of fields could not be unpacked: RFC 9113 section 4.3 has an error for that."""
    return isinstance(error.__cause__, HPACKError) and not isinstance(error, DenialOfServiceError)


class Frames:
    """Owned by its connection, which sends `to_send`."""

    __slots__ = ("_goaway", "_library", "_owed", "_received", "_told", "progress")

    def __init__(self, limits: LimitSettings, *, websockets: bool) -> None:
        """With `websockets` they are offered (RFC 8441)."""
        self._received = 0  # bytes of bodies that the connection's window was not opened for again
        self._owed: dict[int, int] = {}  # the same of streams
        self._told = 0  # bytes of bodies of which the library has told since `take_ignored`
        self._goaway = b""  # what is to be sent behind what the library has
        self.progress = Progress()  # of what the client says
        self._library: H2Connection = _Library(_CONFIG)
        self._library.encoder = _Encoder()
        # So that one that is too long for us can be answered, and not only cut off.
        most = min(2 * limits.head, _LARGEST)
        self._library.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: min(limits.http2_streams, _LARGEST),
                SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
                SettingCodes.MAX_HEADER_LIST_SIZE: most,
                SettingCodes.ENABLE_CONNECT_PROTOCOL: int(websockets),
            },
        )
        self._library.decoder.max_header_list_size = most
        self._library.initiate_connection()
        self._library.increment_flow_control_window(_ALL_WINDOWS - _INITIAL)

    # What the client says

    def hear(self, data: bytes) -> list[Event]:
        """What is told by more bytes. Raises ProtocolError with its code; then GOAWAY is to be sent."""
        self.progress.feed(data)
        try:
            if self.progress.error:
                raise ProtocolError
            return self._library.receive_data(data)
        except ProtocolError as error:
            if self.progress.error:
                error.error_code = ErrorCodes(self.progress.error)
            elif _is_compression(error):
                error.error_code = ErrorCodes.COMPRESSION_ERROR
            self._library.clear_outbound_data_buffer()  # with a GOAWAY that may name another reason
            self.take_no_more(error.error_code)
            raise

    def take_ignored(self) -> int:
        """Bytes of bodies that came since this was called before for streams that are closed.

        A client sends all that it has the window for before it hears that its body is not wanted.
        """
        told, self._told = self._told, 0
        return self.progress.take_bodies() - told

    def received(self, size: int) -> None:
        """So many bytes of bodies came: the connection's window is opened again, for half of it at a time."""
        self._told += size
        self._received += size
        if self._received >= _ALL_WINDOWS // 2:
            self._library.increment_flow_control_window(self._received)
            self._received = 0

    def took(self, number: int, size: int) -> bool:
        """So many bytes of a stream's body were taken: its window is opened again, for half of it at a time.

        Return whether it was.
        """
        owed = self._owed.get(number, 0) + size
        if owed < WINDOW // 2:
            self._owed[number] = owed
            return False
        self._owed.pop(number, None)
        with suppress(ProtocolError, KeyError):  # it was closed in what is being read
            self._library.increment_flow_control_window(owed, number)
        return True

    def left(self, number: int) -> None:
        """A stream is over."""
        self._owed.pop(number, None)

    def use_settings(self) -> None:
        """The client's settings have changed: fields of every answer would fill any table, to no use."""
        encoder = self._library.encoder
        encoder.header_table_size = min(self._library.remote_settings.header_table_size, _TABLE)
        if changes := encoder.table_size_changes:  # RFC 7541 section 4.2: no more than these are told
            encoder.table_size_changes = sorted({min(changes), changes[-1]})

    def client_leaves(self) -> None:
        """The client has said GOAWAY: for the library that is the end, and not only that of new streams."""
        self._library.state_machine.state = ConnectionState.SERVER_OPEN

    # What the client is said

    def to_send(self) -> bytes:
        """What has gathered."""
        goaway, self._goaway = self._goaway, b""
        return self._library.data_to_send() + goaway

    def room(self, number: int) -> int:
        """Bytes that the next frame of a stream's body may have, at most; 0 or less: none may be sent."""
        library = self._library
        return min(library.local_flow_control_window(number), library.max_outbound_frame_size, _FRAME)

    def fields(self, number: int, fields: FieldList, *, ends: bool = False) -> None:
        """Send a head, of the response or an informational one, or trailers. Raises ProtocolError."""
        self._library.send_headers(number, fields, end_stream=ends)

    def data(self, number: int, data: bytes, *, ends: bool) -> None:
        """Send some of a body, within `room`; with no bytes only the end. Raises ProtocolError."""
        self._library.send_data(number, data, end_stream=ends)

    def reset(self, number: int, error: ErrorCodes) -> None:
        """Reset a stream; it may be closed already."""
        with suppress(ProtocolError):
            self._library.reset_stream(number, error)

    def take_no_more(self, error: int = ErrorCodes.NO_ERROR) -> None:
        """Say GOAWAY; the streams that are open go on, which the library's own would end."""
        last = self._library.highest_inbound_stream_id
        self._goaway = GoAwayFrame(last_stream_id=last, error_code=error).serialize()

    def end(self, error: ErrorCodes, why: bytes = b"") -> None:
        """Say GOAWAY, and nothing more; `why` is for people."""
        self._library.close_connection(error, why or None)

    def __repr__(self) -> str:
        return f"<Frames {self._library.state_machine.state.name} {list(self._library.streams)}>"
