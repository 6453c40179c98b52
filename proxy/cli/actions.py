"""The commands that talk to a running proxy."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from proxy.cli.client import AdminClient
from proxy.cli.failing import fail
from proxy.cli.seconds import Seconds

_COLUMNS = ("name", "health", "admin_state", "sessions", "tunnels", "pid", "url")  # of `status`
_ROLLOUT = ("state", "phase", "done", "total", "reason")
_INTERVAL = 0.5  # seconds between two looks at a drain
_WIDTH = 30  # characters of the bar of a drain
_LATE = 30.0  # seconds after its deadline in which a drain has to end


SECONDS = Seconds()
F = TypeVar("F", bound=Callable[..., Any])


def to_a_proxy(command: F) -> F:
    """The options by which the proxy is found."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print what the API says."),
        click.option("--token", envvar="CHAINLIT_PROXY_TOKEN", help="The admin token, where one is set."),
        click.option(
            "--admin",
            metavar="URL",
            envvar="CHAINLIT_PROXY_ADMIN",
            default="http://127.0.0.1:9901",
            help="Where the admin listener is.",
        ),
    ):
        command = option(command)
    return command


_NAME = click.argument("name", metavar="NAME")


@click.command()
@to_a_proxy
def status(admin: str, token: str | None, as_json: bool) -> None:
    """Show the backends of a running proxy."""
    backends = AdminClient(admin, token).get_all("/api/backends", *_COLUMNS)
    if as_json:
        click.echo(json.dumps(backends, indent=2))
        return
    rows: list[tuple[str, ...]] = [
        ("BACKEND", "HEALTH", "ADMIN STATE", "SESSIONS", "TUNNELS", "PID", "URL", "REASON")
    ]
    for backend in backends:
        shown = ("-" if backend[column] is None else str(backend[column]) for column in _COLUMNS)
        rows.append((*shown, str(backend.get("reason", ""))))  # a proxy of an older version tells none
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(f"{value:<{width}}" for value, width in zip(row, widths, strict=True)).rstrip())


@click.command()
@_NAME
@click.option("--wait", is_flag=True, help="Return when it is empty.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=SECONDS,
    help="When everything has to have left.  [default: timeouts.drain of the proxy]",
)
@to_a_proxy
def drain(name: str, wait: bool, timeout: float | None, admin: str, token: str | None, as_json: bool) -> None:
    """Give a backend no new sessions, and have those it has leave it when they are at rest."""
    client = AdminClient(admin, token)
    backend = client.backend(name, "drain", {"timeout": timeout})
    if wait:
        backend = _until_empty(client, name, backend)
    _tell(backend, as_json=as_json)


def _until_empty(client: AdminClient, name: str, backend: dict[str, Any]) -> dict[str, Any]:
    """Wait for the end of a drain; ends the command with status 1 if it does not come."""
    begun = max(1, backend["sessions"])
    while True:
        state = backend.get("drain")
        if not isinstance(state, dict):
            fail(f"{name} is set to {backend['admin_state']}: the drain was ended", 1)
        if state["empty"]:
            if sys.stderr.isatty():
                click.echo(err=True)
            return backend
        if state["seconds_left"] < -_LATE:
            fail(f"{name} still has {backend['sessions']} sessions and {backend['tunnels']} tunnels", 1)
        if sys.stderr.isatty():
            left = f"{backend['sessions']} sessions, {max(0, state['seconds_left']):.0f} s left"
            done = bar(1 - min(backend["sessions"], begun) / begun, _WIDTH)
            click.echo(f"\r{name} {done} {left}\x1b[K", nl=False, err=True)  # and nothing behind it
        time.sleep(_INTERVAL)
        before, found = backend, client.backend_if_there(name)
        if found is not None:
            backend = found
        elif before.get("leaving"):  # it was to leave the fleet when it is empty, and so it has
            backend = before | {"drain": state | {"empty": True}}
        else:
            fail(f"{name} has left the fleet: the drain was ended", 1)


@click.command()
@_NAME
@to_a_proxy
def ready(name: str, admin: str, token: str | None, as_json: bool) -> None:
    """Give a backend sessions again, a growing share of the new ones."""
    _tell(AdminClient(admin, token).backend(name, "ready"), as_json=as_json)


@click.command()
@_NAME
@to_a_proxy
def maintenance(name: str, admin: str, token: str | None, as_json: bool) -> None:
    """Take a backend out now: its sessions move at once, whatever they are at."""
    _tell(AdminClient(admin, token).backend(name, "maintenance"), as_json=as_json)


@click.command()
@click.option(
    "--pid",
    metavar="PID",
    type=click.IntRange(min=2),
    help="Send SIGHUP to this process, and ask no admin listener: the log tells what came of it.",
)
@to_a_proxy
def reload(pid: int | None, admin: str, token: str | None, as_json: bool) -> None:
    """Have a running proxy read its configuration again; a bad one changes nothing."""
    if pid is not None:
        try:
            os.kill(pid, signal.SIGHUP)
        except OSError as error:
            fail(f"--pid {pid}: {error.strerror}", 1)
        return
    client = AdminClient(admin, token)
    result = client.post("/api/reload", "applied", "changes", "problems", "restart", also=(409,))
    if as_json:
        click.echo(json.dumps(result, indent=2))
    elif not result["applied"]:
        fail("\n".join(result["problems"]))
    else:
        click.echo(f"changed: {', '.join(result['changes']) or 'nothing'}")
        for key in result["restart"]:
            click.echo(f"{key}: takes effect when the proxy is started again")
    if not result["applied"]:
        sys.exit(2)


@click.command()
@click.option("--wait", is_flag=True, help="Return when it is done, with status 1 if it failed.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=SECONDS,
    help="What the drain of each replica may take.  [default: timeouts.drain of the proxy]",
)
@to_a_proxy
def rollout(wait: bool, timeout: float | None, admin: str, token: str | None, as_json: bool) -> None:
    """Replace the replicas of `run` by new ones, one after the other, without losing a session."""
    client = AdminClient(admin, token)
    state = client.post("/api/rollout", *_ROLLOUT, body={"timeout": timeout})
    told = ""
    while wait and state["state"] == "running":
        progress = f"{state['done']} of {state['total']} are replaced, {state['phase'] or 'about to begin'}"
        if sys.stderr.isatty() and progress != told:
            click.echo(progress, err=True)
            told = progress
        time.sleep(_INTERVAL)
        state = client.get("/api/rollout", *_ROLLOUT)
        if state["state"] == "idle":
            fail("the proxy has been started again: it knows of no rollout", 1)
    if as_json:
        click.echo(json.dumps(state, indent=2))
    elif state["state"] != "failed":
        click.echo(f"rollout {state['state']}: {state['done']} of {state['total']} replicas are new")
    if state["state"] == "failed":
        fail(f"rollout failed after {state['done']} of {state['total']} replicas: {state['reason']}", 1)


def bar(part: float, width: int) -> str:
    """A bar of so many characters, filled by a part between 0 and 1."""
    filled = round(part * width)
    return "#" * filled + "." * (width - filled)


def _tell(backend: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(backend, indent=2))
        return
    state = backend.get("drain")
    if state and state["empty"]:
        forced = f", {state['forced']} of them in the middle of an answer" if state["forced"] else ""
        moved = state["sent_away"] + state["forced"]
        click.echo(f"{backend['name']} is drained: {moved} sessions had to leave{forced}")
    else:
        click.echo(f"{backend['name']} is set to {backend['admin_state']}, {backend['sessions']} sessions")
