"""The command that puts simulated users on an app, and tells what they met."""

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from proxy.cli.doctor import login
from proxy.cli.failing import fail
from proxy.cli.options import SECONDS
from proxy.cli.screen import bar

if TYPE_CHECKING:
    from proxy.load.run import Crowd, Outcome, Plan

_QUESTIONS = ("Hello", "What can you do for me?", "Tell me more about that, please.")
_WIDTH = 30  # characters of a bar
_CLEAR = "\x1b[H\x1b[J"  # to the corner, and nothing below
_STEP = 5.0  # seconds between two lines where there is no terminal
_MIX = ("page", "page", "page", "websocket", "polling")  # three of five as the page does it
_TRANSPORTS = ("mix", "page", "websocket", "polling")


@click.command()
@click.argument("url", metavar="URL")
@click.option(
    "--users",
    metavar="N",
    type=click.IntRange(1, 20_000),
    default=200,
    show_default=True,
    help="How many there are; with --target the most that are tried.",
)
@click.option(
    "--ramp",
    metavar="SECONDS",
    type=SECONDS,
    default=30,
    show_default=True,
    help="The time in which all of them come.",
)
@click.option(
    "--for",
    "seconds",
    metavar="SECONDS",
    type=SECONDS,
    default=60,
    show_default=True,
    help="How long they stay afterwards; without --target.",
)
@click.option(
    "--target",
    metavar="SECONDS",
    type=SECONDS,
    help="Find how many users the app carries before the first token takes longer, for one of ten.",
)
@click.option(
    "--say",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Questions, one a line.  [default: three short ones]",
)
@click.option(
    "--think",
    metavar="SECONDS",
    type=SECONDS,
    default=5,
    show_default=True,
    help="The time between an answer and the next question, on average.",
)
@click.option(
    "--patience",
    metavar="SECONDS",
    type=SECONDS,
    default=120,
    show_default=True,
    help="When an answer is given up.",
)
@click.option(
    "--transport",
    type=click.Choice(_TRANSPORTS),
    default="mix",
    show_default=True,
    help="How they connect; mix: three of five as the page does it.",
)
@click.option(
    "--cookie",
    "cookies",
    metavar="NAME=VALUE",
    multiple=True,
    help="Sent with every request, such as that of a login; may be given several times, and hold several "
    "separated by `;`.",
)
@click.option(
    "--header",
    "headers",
    metavar="NAME:VALUE",
    multiple=True,
    help="Sent with every request; may be given several times.",
)
@click.option("--insecure", is_flag=True, help="Accept any certificate.")
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write all figures there.",
)
@click.option(
    "--html",
    "html_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a report with pictures there.",
)
@click.option(
    "--yes-it-is-mine", "is_mine", is_flag=True, help="Allow a public address, which is otherwise refused."
)
def load(
    url: str,
    users: int,
    ramp: float,
    seconds: float,
    target: float | None,
    say: Path | None,
    think: float,
    patience: float,
    transport: str,
    cookies: tuple[str, ...],
    headers: tuple[str, ...],
    insecure: bool,
    json_file: Path | None,
    html_file: Path | None,
    is_mine: bool,
) -> None:
    """Put simulated users on a Chainlit app, and tell what they meet and how many it carries.

    URL is where a browser would open the app, with its root path.
    """
    address = _checked(url, is_mine=is_mine)
    if target == 0:
        fail("--target: must be a number greater than 0")
    for option, file in (("--json", json_file), ("--html", html_file)):
        if file is not None and not os.access(file if file.exists() else file.parent, os.W_OK):
            fail(f"{option} {file}: cannot be written")  # which would be known when all has been measured
    from proxy.load.protocol import Transport  # noqa: PLC0415 - nobody else needs it
    from proxy.load.run import Plan  # noqa: PLC0415
    from proxy.load.user import Habits  # noqa: PLC0415

    mix = _MIX if transport == "mix" else (transport,)
    habits = Habits(address, _questions(say), think, patience, _headers(cookies, headers))
    verify = not insecure
    plan = Plan(habits, users, ramp, tuple(map(Transport, mix)), seconds, target, verify)
    outcome = _run(plan)
    from proxy.load import report  # noqa: PLC0415

    click.echo(report.text(outcome))
    for file, make in ((json_file, report.as_json), (html_file, report.page)):
        if file is not None:
            try:
                file.write_text(make(outcome), encoding="utf-8")
            except OSError as error:
                fail(f"{file}: cannot be written: {error.strerror}", 1)
    if not outcome.tally.connects:
        fail(f"{url}: nobody could open a session there", 1)


def _checked(url: str, *, is_mine: bool) -> str:
    """The URL without its last slash. Ends the command if it is none, or that of somebody else."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
            raise ValueError
        if "?" in url or "#" in url or not url.isprintable():
            raise ValueError
    except ValueError:
        # It is not repeated: what is wrong with it may be the password.
        fail("URL: must be a URL such as http://127.0.0.1:8000, without a password, query or fragment")
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        fail(f"{url}: {getattr(error, 'strerror', None) or error}")
    public = sorted(
        {str(at[4][0]) for at in found if ipaddress.ip_address(str(at[4][0]).partition("%")[0]).is_global}
    )
    if public and not is_mine:
        fail(
            f"{url}: is at a public address, {public[0]}. So many users at once are an attack on an app that"
            " is not yours; if it is, say so with --yes-it-is-mine"
        )
    return url.rstrip("/")


def _questions(file: Path | None) -> tuple[str, ...]:
    if file is None:
        return _QUESTIONS
    try:
        found = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except OSError as error:
        fail(f"--say {file}: cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        fail(f"--say {file}: must be text in UTF-8")
    if not found:
        fail(f"--say {file}: holds no question")
    return found


def _headers(cookies: tuple[str, ...], headers: tuple[str, ...]) -> dict[str, str]:
    given, kept = login(cookies, headers)
    cookie = "; ".join(f"{name}={value}" for name, value in kept.items())
    return given | ({"Cookie": cookie} if cookie else {})


def _run(plan: "Plan") -> "Outcome":
    """Do it; interrupted, it ends with what is known so far."""
    from proxy.load.run import Crowd  # noqa: PLC0415

    crowd = Crowd(plan, _Screen())

    async def main() -> None:
        running = asyncio.create_task(crowd.run())
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, running.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await running

    import uvloop  # noqa: PLC0415

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    return crowd.outcome


class _Screen:
    """Shows a crowd: on a terminal all the time, elsewhere in a line now and then."""

    def __init__(self) -> None:
        self._is_live = sys.stderr.isatty()
        self._next = 0.0

    def __call__(self, crowd: "Crowd") -> None:
        at = asyncio.get_running_loop().time()
        if at < self._next:
            return
        self._next = at + (1.0 if self._is_live else _STEP)
        click.echo(_CLEAR + picture(crowd, at) if self._is_live else line(crowd, at), err=True)


def _now(crowd: "Crowd", at: float) -> dict[str, Any]:
    tally, span = crowd.outcome.tally, crowd.outcome.tally.span(at - 5, at)
    return {
        "users": tally.connected,
        "median": span.quantile(0.5),
        "p90": span.quantile(0.9),
        "tokens": span.tokens / 5,
        "answers": len(tally.answers),
        "errors": len(tally.errors),
        "disconnects": len(tally.disconnects),
        "cpu": tally.seconds[-1].cpu if tally.seconds else {},
    }


def line(crowd: "Crowd", at: float) -> str:
    """What goes on, in a line."""
    now = _now(crowd, at)
    return (
        f"{at - crowd.outcome.began:4.0f} s  {crowd.doing}: {now['users']} connected, first token"
        f" {now['median']:.2f} s ({now['p90']:.2f}), {now['tokens']:.0f} tokens/s, {now['answers']} answers,"
        f" {now['errors']} errors, {now['disconnects']} disconnects"
    )


def picture(crowd: "Crowd", at: float) -> str:
    """What goes on, on a whole screen."""
    now, plan = _now(crowd, at), crowd.plan
    first = bar(min(1.0, now["p90"] / (plan.target or max(1.0, now["p90"]))), _WIDTH)
    lines = [
        f"chainlit-proxy load {plan.habits.url}   {at - crowd.outcome.began:.0f} s   {crowd.doing}",
        "",
        f"users        {bar(now['users'] / plan.users, _WIDTH)}  {now['users']} of {plan.users}",
        f"first token  {first}  {now['median']:.2f} s, nine of ten {now['p90']:.2f} s",
        f"tokens/s     {now['tokens']:.0f}",
        f"answers      {now['answers']} whole, {now['errors']} errors, {now['disconnects']} disconnects",
        *(
            f"{name:<11}  {bar(min(1.0, cores), _WIDTH)}  {cores:.2f} cores"
            for name, cores in now["cpu"].items()
        ),
        "",
    ]
    for trial in crowd.outcome.trials:
        verdict = "carried" if trial.carried else "too much"
        lines.append(f"{trial.users:>6} users  {verdict}  {trial.span.quantile(0.9):.2f} s")
    return "\n".join(lines)
