"""The commands that show what a running proxy does.

Bars are written by hand: a library for terminals would weigh more than the whole command.
"""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import click

from proxy.cli.actions import bar, to_a_proxy
from proxy.cli.client import AdminClient

_EVENT = ("at", "kind", "backend", "text", "lines")
_OVERVIEW = ("at", "version", "backends")
_STEP = 1.0  # seconds between two pictures of `top`
_WIDTH = 20  # characters of a bar
_CLEAR = "\x1b[H\x1b[J"  # to the corner, and nothing below


@click.command()
@click.argument("wanted", metavar="ID")
@to_a_proxy
def where(wanted: str, admin: str, token: str | None, as_json: bool) -> None:
    """Tell where a session is, and why: by its id, the beginning of it, a sid or a pin."""
    client = AdminClient(admin, token)
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
    click.echo(f"since {_moment(session['since'])}, {session['open']} connections{answering}")
    for move in session["moves"]:
        click.echo(f"{_moment(move['at'])}  {move['origin']} -> {move['target']}  {move['reason']}")


@click.command()
@click.option("--follow", is_flag=True, help="Go on with what happens from now on.")
@to_a_proxy
def events(follow: bool, admin: str, token: str | None, as_json: bool) -> None:
    """Show what happened lately: health, drains, reloads, rollouts, replicas."""
    client = AdminClient(admin, token)
    happened: Iterator[dict[str, Any]] | list[dict[str, Any]]
    happened = client.follow("/api/stream") if follow else client.get_all("/api/events", *_EVENT)
    if as_json and not follow:
        click.echo(json.dumps(happened, indent=2))
        return
    with suppress(KeyboardInterrupt):
        for event in happened:
            click.echo(json.dumps(event) if as_json else _told(event))


@click.command()
@to_a_proxy
def top(admin: str, token: str | None, as_json: bool) -> None:
    """Show live what the backends do, until it is interrupted; with --json what they did, once."""
    client = AdminClient(admin, token)
    now = client.get("/api/overview", *_OVERVIEW)
    if as_json:
        click.echo(json.dumps(now, indent=2))
        return
    before = now
    with suppress(KeyboardInterrupt):
        while True:
            click.echo(_CLEAR + picture(before, now))
            time.sleep(_STEP)
            before, now = now, client.get("/api/overview", *_OVERVIEW)


def picture(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What `top` shows: rates are of the time between two overviews."""
    seconds = max(now["at"] - before["at"], 0.001)
    earlier = {backend["name"]: backend for backend in before["backends"]}
    most = max((backend["sessions"] for backend in now["backends"]), default=0)
    wide = max((len(backend["name"]) for backend in now["backends"]), default=7)
    build = f" ({now['build']})" if "build" in now else ""  # a proxy of an older version tells none
    title = f"{'BACKEND':<{max(wide, 7)}}  {'HEALTH':<8}  {'ADMIN STATE':<11}  {'SESSIONS':<{_WIDTH}}"
    lines = [
        f"chainlit-proxy {now['version']}{build}   {sum(b['sessions'] for b in now['backends'])} sessions",
        f"{title}        TURNS  REQUESTS/S  FRAMES/S  PROBE MS   CPU",
    ]
    for backend in now["backends"]:
        old = earlier.get(backend["name"], backend)
        rate = max(0, backend["requests"] - old["requests"]) / seconds
        frames = max(0, backend["frames"] - old["frames"]) / seconds
        probes = backend["probes"] - old["probes"]
        spent = backend["probe_seconds"] - old["probe_seconds"]
        cpu = "-"
        if None not in (backend["cpu_seconds"], old["cpu_seconds"]):
            cpu = f"{100 * max(0, backend['cpu_seconds'] - old['cpu_seconds']) / seconds:.0f}%"
        probe = f"{1000 * spent / probes:.1f}" if probes > 0 else "-"
        lines.append(
            f"{backend['name']:<{max(wide, 7)}}  {backend['health']:<8}  {backend['admin_state']:<11}"
            f"  {bar(backend['sessions'] / most if most else 0, _WIDTH)}  {backend['sessions']:>4}"
            f"  {backend['turns']:>5}  {rate:>10.1f}  {frames:>8.1f}  {probe:>8}  {cpu:>4}"
        )
    return "\n".join(lines)


def _told(event: dict[str, Any]) -> str:
    about = f"{event['backend']} " if event["backend"] else f"{event['kind']} "
    return "\n    ".join([f"{_moment(event['at'])}  {about}{event['text']}", *event["lines"]])


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
