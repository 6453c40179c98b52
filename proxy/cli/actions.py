"""The commands that tell a running proxy something."""

import json
import os
import signal
import sys
import time
from typing import Any

import click

from proxy.cli.client import AdminClient, AskError
from proxy.cli.failing import INTERRUPTED, fail
from proxy.cli.options import NAME, SECONDS, to_a_proxy
from proxy.cli.screen import bar, can_draw
from proxy.words import counted, drained

_ROLLOUT = ("state", "phase", "done", "total", "reason")
_INTERVAL = 0.5  # seconds between two looks at a drain
_WIDTH = 30  # characters of the bar of a drain
_LATE = 30.0  # seconds after its deadline in which a drain has to end

_FORCE = click.option("--force", is_flag=True, help="Even if no other backend takes new sessions.")


@click.command()
@NAME
@click.option("--wait", is_flag=True, help="Wait until it is empty.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=SECONDS,
    help="Seconds until the remaining sessions are moved, finished or not.  "
    "[default: timeouts.drain of the proxy]",
)
@_FORCE
@to_a_proxy
def drain(
    name: str,
    wait: bool,
    timeout: float | None,
    force: bool,
    admin: str,
    token: str | None,
    as_json: bool,
) -> None:
    """Give a backend no new sessions, and move its sessions as soon as they are idle."""
    client = AdminClient(admin, token)
    backend = client.backend(name, "drain", {"timeout": timeout, **_forced(force=force)})
    if wait:
        try:
            backend = _until_empty(client, name, backend)
        except KeyboardInterrupt:
            _stopped_waiting(f"{name} goes on draining; `chainlit-proxy ready {name}` takes it back")
    _tell(backend, as_json=as_json)


def _forced(*, force: bool) -> dict[str, bool]:
    """What a request says of it: nothing unless it has to, for a proxy that does not know the word."""
    return {"force": True} if force else {}


def _until_empty(client: AdminClient, name: str, backend: dict[str, Any]) -> dict[str, Any]:
    """Wait for the end of a drain; ends the command with status 1 if it does not come."""
    begun = max(1, backend["sessions"])
    while True:
        state = backend.get("drain")
        if not isinstance(state, dict):
            fail(f"{name} is set to {backend['admin_state']}: the drain was ended", 1)
        if state["empty"]:
            if can_draw(sys.stderr):
                click.echo(err=True)
            return backend
        sessions, tunnels = counted(backend["sessions"], "session"), counted(backend["tunnels"], "tunnel")
        if state["seconds_left"] < -_LATE:
            fail(f"{name} still has {sessions} and {tunnels}", 1)
        if can_draw(sys.stderr):
            left = f"{sessions}, {max(0, state['seconds_left']):.0f} s left"
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


def _stopped_waiting(what_goes_on: str) -> None:
    """Ends the command after Ctrl-C."""
    if sys.stderr.isatty():
        click.echo(err=True)
    fail(f"stopped waiting: {what_goes_on}", INTERRUPTED)


@click.command()
@NAME
@to_a_proxy
def ready(name: str, admin: str, token: str | None, as_json: bool) -> None:
    """Put a backend back into service, with a growing share of new sessions."""
    _tell(AdminClient(admin, token).backend(name, "ready"), as_json=as_json)


@click.command()
@NAME
@_FORCE
@to_a_proxy
def maintenance(name: str, force: bool, admin: str, token: str | None, as_json: bool) -> None:
    """Take a backend out of service now: its sessions move at once, even in the middle of an answer."""
    backend = AdminClient(admin, token).backend(name, "maintenance", _forced(force=force))
    _tell(backend, as_json=as_json)


@click.command()
@click.option(
    "--pid",
    metavar="PID",
    type=click.IntRange(min=2),
    help="Send SIGHUP to this process instead of asking the admin listener; the log has the result.",
)
@to_a_proxy
def reload(pid: int | None, admin: str, token: str | None, as_json: bool) -> None:
    """Reload the configuration of a running proxy; one with errors changes nothing."""
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
@click.option(
    "--wait",
    is_flag=True,
    help="Wait until it is done, with status 1 if it failed; if one is already running, wait for that one.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=SECONDS,
    help="Seconds that each drain may take.  [default: timeouts.drain of the proxy]",
)
@to_a_proxy
def rollout(wait: bool, timeout: float | None, admin: str, token: str | None, as_json: bool) -> None:
    """Replace the replicas of `run` with new ones, one after the other, without losing a session."""
    client = AdminClient(admin, token)
    state = _begun(client, timeout, join=wait)
    if wait:
        try:
            state = _until_done(client, state)
        except KeyboardInterrupt:
            _stopped_waiting("the rollout goes on; `chainlit-proxy rollout --wait` waits for it again")
    if as_json:
        click.echo(json.dumps(state, indent=2))
    elif state["state"] != "failed":
        click.echo(f"rollout {state['state']}: {state['done']} of {state['total']} replicas are new")
    if state["state"] == "failed":
        fail(f"rollout failed after {state['done']} of {state['total']} replicas: {state['reason']}", 1)


def _begun(client: AdminClient, timeout: float | None, *, join: bool) -> dict[str, Any]:
    """The state of a rollout that was begun; with `join` of one that runs already."""
    try:
        return client.post("/api/rollout", *_ROLLOUT, body={"timeout": timeout})
    except AskError as refusal:
        state = client.get("/api/rollout", *_ROLLOUT) if join and refusal.status == 409 else {}
        if state.get("state") != "running":
            raise
        click.echo("a rollout is running already: waiting for its end", err=True)
        return state


def _until_done(client: AdminClient, state: dict[str, Any]) -> dict[str, Any]:
    """Wait for the end of a rollout."""
    told = ""
    while state["state"] == "running":
        progress = f"{state['done']} of {state['total']} are replaced, {state['phase'] or 'about to begin'}"
        if sys.stderr.isatty() and progress != told:
            click.echo(progress, err=True)
            told = progress
        time.sleep(_INTERVAL)
        state = client.get("/api/rollout", *_ROLLOUT)
        if state["state"] == "idle":
            fail("the proxy has been started again: it knows of no rollout", 1)
    return state


def _tell(backend: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(backend, indent=2))
        return
    state = backend.get("drain")
    if state and state["empty"]:
        click.echo(f"{backend['name']} {drained(state['sent_away'], state['forced'])}")
    else:
        sessions = counted(backend["sessions"], "session")
        click.echo(f"{backend['name']} is set to {backend['admin_state']}, {sessions}")
