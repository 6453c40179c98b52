"""The port of the admin listener: whose it is, and what happens where it is taken."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from proxy import net
from proxy.cli import main
from proxy.cli.reading import FREE_ADMIN, read_for_run
from proxy.cli.serving import _with_free_admin
from proxy.config import Address, Config, loads
from proxy.ports import Ports

PORT = Address("127.0.0.1", 9901)


def _config(listen: int, admin: int) -> Config:
    return loads(f"listen: 127.0.0.1:{listen}\nadmin: {{listen: '127.0.0.1:{admin}'}}")


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """A port that somebody else has."""
    sock = net.bind(Address("127.0.0.1", 0))
    yield sock
    sock.close()


def test_another_configuration_is_taken_where_one_cannot_be_bound(taken: socket.socket) -> None:
    """All of its ports, and it is said which one that was; the first one where it can be had."""
    port = taken.getsockname()[1]
    wanted, other = _config(0, port), _config(0, 0)
    ports = Ports()
    assert ports.bind(wanted, other) is other
    assert len(ports.bound.all) == 2
    ports.close()
    assert ports.bind(other, wanted) is other
    ports.close()


def test_a_port_of_clients_that_is_taken_stays_a_failure(taken: socket.socket) -> None:
    """Another port for operators does not help: it is told, and nothing is left open."""
    port = taken.getsockname()[1]
    ports = Ports()
    with pytest.raises(net.ListenError, match=f"cannot listen on 127.0.0.1:{port}: the port is taken$"):
        ports.bind(_config(port, 0), _config(port, 0))
    assert ports.bound.all == set()


def test_the_message_says_whose_port_it_is(taken: socket.socket, tmp_path: Path) -> None:
    """Nobody asked for 9901: how to have another one is told, and `serve` has the option too."""
    file = tmp_path / "proxy.yaml"
    file.write_text("backends: [http://127.0.0.1:1]")
    where = f"127.0.0.1:{taken.getsockname()[1]}"
    result = CliRunner().invoke(main, ["serve", str(file), "--listen", "127.0.0.1:0", "--admin", where])
    assert result.exit_code == 2
    assert result.stderr == (
        f"cannot listen on {where}: the port is taken; it is that of the admin listener, which another "
        "chainlit-proxy may have: choose one with --admin or admin.listen\n"
    )


def test_run_takes_a_free_port_where_nobody_has_named_one(tmp_path: Path) -> None:
    """And says how commands find it; one that was named is not replaced."""
    command = [sys.executable, "-m", "proxy", "run", "nosuch.py", "--listen", "127.0.0.1:0"]
    with socket.socket() as other:
        with suppress(OSError):  # somebody else has it, which is as good
            other.bind((PORT.host, PORT.port))
            other.listen()
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        named = subprocess.run(
            [*command, "--admin", str(PORT)], capture_output=True, text=True, timeout=60, check=False
        )
    assert f"{PORT} is taken, by another chainlit-proxy perhaps" in done.stderr
    assert "chainlit-proxy status --admin 127.0.0.1:" in done.stderr
    assert "nosuch.py: there is no such file" in done.stderr
    assert f"cannot listen on {PORT}: the port is taken" in named.stderr


def test_a_reload_keeps_the_free_port() -> None:
    """What is read again names the same address as what was bound."""
    begun = _with_free_admin(read_for_run(None, {}, "", None))
    assert read_for_run(None, {}, "", None, FREE_ADMIN).admin == begun.admin
