"""Listeners: every address of a name, and who may connect to a socket file."""

import grp
import json
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from proxy import net
from proxy.config import Address, Config, loads
from proxy.config.sections import SocketSettings
from proxy.ports import Ports
from tests.dataplane.peers import WAIT
from tests.support.processes import free_port

LOOPBACK = Address("127.0.0.1", 0)


def test_a_name_is_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who listens on a name is reached at each address of it that this machine has, once at each."""
    port, found = free_port(), socket.getaddrinfo
    named = ["192.0.2.1", "127.0.0.2", "127.0.0.1", "127.0.0.2"]

    def resolve(host: str, port: int, *args: Any, **options: Any) -> list[Any]:
        hosts = named if host == "three.test" else [host]
        return [one for each in hosts for one in found(each, port, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    listen = [Address("three.test", port), Address("127.0.0.1", port)]
    opened = net.Inherited({}).open(listen, SocketSettings())
    assert list(opened) == [Address("127.0.0.1", port), Address("127.0.0.2", port)]
    for sock in opened.values():
        with socket.create_connection(sock.getsockname(), timeout=WAIT):
            pass
        sock.close()


def test_addresses_that_are_meant_as_they_are(tmp_path: Path) -> None:
    """An address, a socket file and a name that leads nowhere stay what they are."""
    listen = [LOOPBACK, Address("::1", 1), Address(path=str(tmp_path / "s")), Address("host.invalid", 1)]
    assert net.addresses(listen) == listen
    assert len(net.addresses([Address("localhost", 0)])) == 1


def test_all_addresses_or_none() -> None:
    """What was opened before an address that cannot be listened on is closed again."""
    with net.bind(LOOPBACK) as taken:
        free, port = free_port(), taken.getsockname()[1]
        with pytest.raises(net.ListenError):
            net.Inherited({}).open([Address("127.0.0.1", free), Address("127.0.0.1", port)], SocketSettings())
        net.bind(Address("127.0.0.1", free)).close()


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o000])
@pytest.mark.parametrize("mode", ["666", "660", "600"])
def test_who_may_connect_to_a_socket_file(tmp_path: Path, mode: str, mask: int) -> None:
    """Its mode decides, whatever the umask of whoever started the proxy; it can be changed later."""
    path = tmp_path / "proxy.sock"
    before = os.umask(mask)
    try:
        with net.bind(Address(path=str(path)), access=SocketSettings(mode=mode)):
            assert stat.S_IMODE(path.stat().st_mode) == int(mode, 8)
            net.Inherited({}).permit([Address(path=str(path)), LOOPBACK], SocketSettings(mode="640"))
            assert stat.S_IMODE(path.stat().st_mode) == 0o640
    finally:
        os.umask(before)


def test_the_group_of_a_socket_file(tmp_path: Path) -> None:
    """It belongs to the group that is named; one that is not there leaves no socket behind."""
    path = tmp_path / "proxy.sock"
    own = grp.getgrgid(os.getegid()).gr_name
    with net.bind(Address(path=str(path)), access=SocketSettings(group=own)):
        assert path.group() == own
    path.unlink()
    with pytest.raises(
        net.ListenError, match=f"unix:{path} cannot be given to the group no-such-group: this"
    ):
        net.bind(Address(path=str(path)), access=SocketSettings(group="no-such-group"))
    assert not path.exists()


@pytest.mark.parametrize(
    ("listen", "admin", "told"),
    [
        ("0.0.0.0:{0}", "127.0.0.1:{1}", "0.0.0.0:{0} beside 127.0.0.1:{0}"),
        ("127.0.0.1:{0}", "0.0.0.0:{1}", "0.0.0.0:{1} beside 127.0.0.1:{1}"),
        ("127.0.0.1:{1}", "127.0.0.1:{0}", "127.0.0.1:{1} beside 127.0.0.1:{1}"),
    ],
)
def test_a_port_that_is_our_own(listen: str, admin: str, told: str) -> None:
    """Where a reload cannot take a port because it is ours until then, that is the reason, and all stays."""
    numbers = free_port(), free_port()

    def config(listen: str, admin: str) -> Config:
        names = {"listen": listen, "admin": {"listen": admin, "token": "a-token"}}
        return loads(json.dumps(names).replace("{0}", f"{numbers[0]}").replace("{1}", f"{numbers[1]}"))

    ports = Ports()
    try:
        ports.bind(config("127.0.0.1:{0}", "127.0.0.1:{1}"))
        before = ports.bound.all
        with pytest.raises(net.ListenError) as caught:
            ports.opened(config(listen, admin))
        assert f"cannot listen on {told.format(*numbers)}, where this proxy listens" in str(caught.value)
        assert ports.bound.all == before
        assert all(sock.fileno() >= 0 for sock in before)
    finally:
        ports.close()


@pytest.mark.parametrize("told", ["", "two", "-2", "\u00b2"])
def test_a_number_of_sockets_that_is_none(told: str) -> None:
    """It is said, and nothing is opened in its place; what is meant for another process is not looked at."""
    with pytest.raises(net.ListenError, match="LISTEN_FDS: must be a number"):
        net.Inherited({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": told})
    net.Inherited({"LISTEN_PID": "1", "LISTEN_FDS": told})
