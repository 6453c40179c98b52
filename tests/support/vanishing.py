"""A network that is gone without a word: nothing arrives, nothing is acknowledged, and nobody is told."""

import ctypes
import socket
import struct

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_TAKES_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K


def vanish(fd: int) -> socket.socket:
    """Have this socket get nothing any more; while the returned one is open, nobody is told of its end.

    A filter (socket(7), SO_ATTACH_FILTER) drops what comes before TCP sees it.
    """
    sock = socket.socket(fileno=socket.dup(fd))
    code = ctypes.create_string_buffer(_TAKES_NOTHING)
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(code)))
    return sock
