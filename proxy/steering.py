"""Which of several processes that share a port gets its new connections (SO_REUSEPORT)."""

import contextlib
import ctypes
import socket
import struct
import sys
from pathlib import Path

_ATTACH_REUSEPORT_CBPF, _DETACH_REUSEPORT_BPF = 51, 68  # asm-generic/socket.h


def steer_away(sock: socket.socket, *, newest: bool) -> bool:
    """Have new connections to a shared port queue at another process's socket; False if there is none.

    The kernel keeps the sockets of a port in the order in which they joined. A program (cBPF, socket(7):
    SO_ATTACH_REUSEPORT_CBPF) tells the place of the one that gets a connection: the newest, or the oldest.
    """
    if sys.platform != "linux" or sock.family == socket.AF_UNIX:
        return False
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
        return False
    others = _listeners(sock) - 1
    if others < 1:
        return False
    # One instruction, "return this number" (BPF_RET | BPF_K), in a struct sock_fprog.
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, others if newest else 0))
    program = struct.pack("@HP", 1, ctypes.addressof(instruction))
    sock.setsockopt(socket.SOL_SOCKET, _ATTACH_REUSEPORT_CBPF, program)
    return True


def spread(sock: socket.socket) -> None:
    """New connections are spread over all who share the port, whatever one that left has asked for."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # nobody has asked for anything
            sock.setsockopt(socket.SOL_SOCKET, _DETACH_REUSEPORT_BPF, 0)


def _listeners(sock: socket.socket) -> int:
    """How many sockets listen where this one does (proc(5): /proc/net/tcp; 0A is TCP_LISTEN)."""
    host, port = sock.getsockname()[:2]
    packed = socket.inet_pton(sock.family, host)
    words = struct.unpack(f"@{len(packed) // 4}I", packed)
    local = "".join(f"{word:08X}" for word in words) + f":{port:04X}"
    table = Path("/proc/net/tcp6" if sock.family == socket.AF_INET6 else "/proc/net/tcp")
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return 1
    return sum(1 for line in lines if line.split()[1:4:2] == [local, "0A"]) or 1
