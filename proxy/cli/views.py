"""The commands that show how a running proxy stands, and what has happened."""

import json
import sys
import time
from contextlib import suppress
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

import click

from proxy.cli.client import AdminClient, AskError
from proxy.cli.failing import fail
from proxy.cli.options import backend_names, one_word, to_a_proxy
from proxy.cli.screen import ago, moment, table
from proxy.words import counted

_BACKEND = ("name", "health", "admin_state", "sessions", "tunnels", "pid", "url")  # columns of `status`
TITLES = ("BACKEND", "HEALTH", "ADMIN STATE", "SESSIONS", "TUNNELS", "PID", "URL", "WHY")
_EVENT = ("at", "kind", "backend", "text", "lines")
_AGAIN = 1.0  # seconds until the next try to follow
_PAGE = 500  # the most sessions that the API tells at once
_MOST = 100  # sessions that are listed unless more are asked for


@click.command()
@click.option(
    "--check", is_flag=True, help="End with status 1 if no backend takes new sessions, as for a probe."
)
@to_a_proxy
def status(check: bool, admin: str, token: str | None, as_json: bool) -> None:
    """Show the backends of a running proxy."""
    backends = AdminClient(admin, token).get_all("/api/backends", *_BACKEND)
    if as_json:
        click.echo(json.dumps(backends, indent=2))
    else:
        rows: list[tuple[str, ...]] = [TITLES]
        for backend in backends:
            shown = ("-" if backend[column] is None else str(backend[column]) for column in _BACKEND)
            rows.append((*shown, _why(backend)))
        click.echo("\n".join(table(rows)))
    if check and not any(_takes_sessions(backend) for backend in backends):
        fail("no backend takes new sessions", 1)


def _why(backend: dict[str, Any]) -> str:
    """Why a backend is not healthy, and for how long; a proxy of an older version tells neither."""
    if backend["health"] == "healthy":
        return ""
    since = f", {ago(time.time() - backend['since'])}" if "since" in backend else ""
    return f"{backend.get('reason') or 'not probed yet'}{since}"


def _takes_sessions(backend: dict[str, Any]) -> bool:
    is_fit = (backend["health"], backend["admin_state"]) == ("healthy", "ready")
    return bool(backend.get("takes_sessions", is_fit))  # a proxy of an older version does not tell


def _list_sessions(
    client: AdminClient, backend: str | None, limit: int, offset: int, *, as_json: bool
) -> None:
    found: list[dict[str, Any]] = []
    while True:
        asked: dict[str, Any] = {"offset": offset + len(found), "limit": min(_PAGE, limit - len(found))}
        asked |= {"backend": backend} if backend is not None else {}
        page = client.get(f"/api/sessions?{urlencode(asked)}", "total", "sessions")
        found += page["sessions"]
        if not page["sessions"] or len(found) >= limit:
            break
    if as_json:
        click.echo(json.dumps({"total": page["total"], "sessions": found}, indent=2))
        return
    if not found:
        click.echo("no sessions" if not offset else f"no more sessions: there are {page['total']}")
        return
    rows: list[tuple[str, ...]] = [("SESSION", "BACKEND", "SINCE", "CONNECTIONS", "STATE")]
    rows += [
        (one["id"], one["backend"] or "-", moment(one["since"]), str(one["open"]), _state(one))
        for one in found
    ]
    click.echo("\n".join(table(rows)))
    until = offset + len(found)
    if until < page["total"]:
        click.echo(f"{offset + 1} to {until} of {page['total']}: go on with --offset {until}", err=True)


def _state(session: dict[str, Any]) -> str:
    if session["answering"]:
        return "answering"
    if session["sent_away"]:
        return "moves"
    return "at rest" if session["open"] else "not connected"


@click.command()
@click.option(
    "--backend",
    metavar="NAME",
    shell_complete=backend_names,
    help="Only those of this backend.",
)
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    default=_MOST,
    show_default=True,
    help="How many to list.",
)
@click.option("--offset", metavar="N", type=click.IntRange(min=0), default=0, help="How many to skip first.")
@to_a_proxy
def sessions(
    backend: str | None, limit: int, offset: int, admin: str, token: str | None, as_json: bool
) -> None:
    """List the sessions that the proxy knows, connected ones first.

    Only the beginning of an id is shown, since a whole one opens its session; `where` accepts it.
    """
    _list_sessions(AdminClient(admin, token), backend, limit, offset, as_json=as_json)


@click.command()
@click.argument("wanted", metavar="[ID]", required=False, callback=one_word)
@to_a_proxy
def where(wanted: str | None, admin: str, token: str | None, as_json: bool) -> None:
    """Show which backend holds a session, and why.

    ID is a session id (or its first 8 characters), an Engine.IO sid or a pin cookie. Without one, it lists
    sessions, as `sessions` does.
    """
    client = AdminClient(admin, token)
    if wanted is None:
        _list_sessions(client, None, _MOST, 0, as_json=as_json)
        return
    found = client.get(f"/api/where/{quote(wanted, safe='')}", "kind", "backend", "holds", "why", "session")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    session = found["session"]
    stays = "" if found["holds"] else ", and moves when it is next heard of"
    click.echo(f"{found['kind']} at {found['backend'] or 'no backend yet'}{stays}: {found['why']}")
    if session is None:
        return
    answering = ", its app is answering" if session["answering"] else ""
    click.echo(f"since {moment(session['since'])}, {counted(session['open'], 'connection')}{answering}")
    for move in session["moves"]:
        click.echo(f"{moment(move['at'])}  {move['origin']} -> {move['target']}  {move['reason']}")


@click.command()
@click.option(
    "--follow", is_flag=True, help="Continue with new events until Ctrl-C; reconnects automatically."
)
@to_a_proxy
def events(follow: bool, admin: str, token: str | None, as_json: bool) -> None:
    """Show recent events: health, drains, reloads, rollouts, replicas."""
    client = AdminClient(admin, token)
    if follow:
        with suppress(KeyboardInterrupt):
            _follow(client, as_json=as_json)
        return
    happened = client.get_all("/api/events", *_EVENT)
    if as_json:
        click.echo(json.dumps(happened, indent=2))
        return
    for event in happened:
        click.echo(_told(event))


def _follow(client: AdminClient, *, as_json: bool) -> NoReturn:
    """Print events as they come; a proxy that has answered once is waited for. Raises AskError."""
    seen, met, lost = 0, False, False
    while True:
        try:
            for event in client.follow("/api/stream", seen):
                if event is None:
                    if lost:
                        click.echo("connected again", err=True)
                    met, lost = True, False
                    continue
                seen = event["id"]
                click.echo(json.dumps(event) if as_json else _told(event))
        except AskError as error:
            if not (met and error.lost):
                raise
            if not lost:
                click.echo("connection lost, trying again", err=True)
                lost = True
            sys.stdout.flush()
            time.sleep(_AGAIN)


def _told(event: dict[str, Any]) -> str:
    about = f"{event['backend']} " if event["backend"] else f"{event['kind']}: "
    if event["kind"] == "backend" and not event["backend"]:
        about = ""  # it is of all of them
    return "\n    ".join([f"{moment(event['at'])}  {about}{event['text']}", *event["lines"]])
