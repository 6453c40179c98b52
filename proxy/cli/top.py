"""`chainlit-proxy top`: what the backends do, live."""

import json
from contextlib import suppress
from typing import Any

import click

from proxy.cli.client import AdminClient, AskError
from proxy.cli.options import to_a_proxy
from proxy.cli.screen import bar, cut, screen
from proxy.words import counted

_OVERVIEW = ("at", "version", "backends")
_STEP = 1.0  # seconds between two pictures
_WAIT = 2.0  # seconds for an answer, in which no key is heard
_BAR = range(5, 21)  # characters of the bar of sessions
_GAP = 2  # spaces between two columns
_TITLES = ("BACKEND", "HEALTH", "STATE", "SESSIONS", "TURNS", "REQ/S", "FRAMES/S", "PROBE", "CPU")
_WORDS = 3  # columns of words, before those of figures
_NAME, _SESSIONS = 0, 3  # columns


@click.command()
@to_a_proxy
def top(admin: str, token: str | None, as_json: bool) -> None:
    """Show sessions and load of all backends, refreshed every second (q or Ctrl-C ends it).

    A narrow terminal drops columns from the right. --json prints one overview and ends.
    """
    client = AdminClient(admin, token, _WAIT)
    now = client.get("/api/overview", *_OVERVIEW)
    if as_json:
        click.echo(json.dumps(now, indent=2))
        return
    before = now
    lost = False
    with suppress(KeyboardInterrupt), screen() as terminal:
        while True:
            terminal.show(picture(before, now, *terminal.size, lost=lost))
            if terminal.wait(_STEP):
                return
            try:
                before, now, lost = now, client.get("/api/overview", *_OVERVIEW), False
            except AskError as error:
                if not error.lost:
                    raise
                lost = True


def picture(
    before: dict[str, Any], now: dict[str, Any], width: int, height: int, *, lost: bool = False
) -> str:
    """What is shown on so many columns and lines: rates are of the time between two overviews."""
    seconds = max(now["at"] - before["at"], 0.001)
    earlier = {backend["name"]: backend for backend in before["backends"]}
    backends = now["backends"]
    rows = [_cells(earlier.get(backend["name"], backend), backend, seconds) for backend in backends]
    for row in rows:
        row[_NAME] = cut(row[_NAME], max(len(_TITLES[_NAME]), width // 4))
    build = f" ({now['build']})" if "build" in now else ""  # a proxy of an older version tells none
    sessions = sum(backend["sessions"] for backend in backends)
    title = f"chainlit-proxy {now['version']}{build}   {counted(sessions, 'session')}   q ends"
    lines = ["connection lost, trying again" if lost else title]
    lines += _lines([list(_TITLES), *rows], [backend["sessions"] for backend in backends], width)
    if len(lines) > height:
        left_out = len(lines) - height + 1
        lines[height - 1 :] = [f"and {counted(left_out, 'more backend')}"]
    return "\n".join(cut(line, width) for line in lines)


def _cells(old: dict[str, Any], backend: dict[str, Any], seconds: float) -> list[str]:
    """One backend, as in _TITLES."""
    rate = max(0, backend["requests"] - old["requests"]) / seconds
    frames = max(0, backend["frames"] - old["frames"]) / seconds
    probes = backend["probes"] - old["probes"]
    spent = backend["probe_seconds"] - old["probe_seconds"]
    cpu = "-"
    if None not in (backend["cpu_seconds"], old["cpu_seconds"]):
        cpu = f"{100 * max(0, backend['cpu_seconds'] - old['cpu_seconds']) / seconds:.0f}%"
    return [
        str(backend["name"]),
        str(backend["health"]),
        str(backend["admin_state"]),
        str(backend["sessions"]),
        str(backend["turns"]),
        f"{rate:.1f}",
        f"{frames:.1f}",
        f"{1000 * spent / probes:.1f}ms" if probes > 0 else "-",
        cpu,
    ]


def _lines(rows: list[list[str]], sessions: list[int], width: int) -> list[str]:
    """The rows in columns, as many as fit, with a bar before the sessions if there is room for it."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    while len(widths) > _SESSIONS + 1 and _total(widths) > width:
        widths.pop()
    room = min(width - _total(widths) - _GAP, _BAR[-1]) if len(widths) == len(_TITLES) else 0
    most = max(sessions, default=0)
    lines = []
    for row, number in zip(rows, [None, *sessions], strict=True):
        cells = [
            f"{text:<{size}}" if column < _WORDS else f"{text:>{size}}"
            for column, (text, size) in enumerate(zip(row, widths, strict=False))
        ]
        if room in _BAR:
            part = number / most if number and most else 0.0
            cells.insert(_SESSIONS, " " * room if number is None else bar(part, room))
        lines.append((" " * _GAP).join(cells).rstrip())
    return lines


def _total(widths: list[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)
