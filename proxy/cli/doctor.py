"""The command that examines a deployment from the outside. What it needs is loaded when it is run."""

import asyncio
import json
import re
import sys
from base64 import b64encode
from typing import TYPE_CHECKING

import click

from proxy.cli.failing import fail
from proxy.cli.options import SECONDS

if TYPE_CHECKING:
    from proxy.doctor.browser import Settings

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_IDLE = 100.0  # seconds: more than the limits of 30, 60 and 90 seconds that proxies have by default


@click.command()
@click.argument("url", metavar="URL")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option(
    "--cookie",
    "cookies",
    metavar="NAME=VALUE",
    multiple=True,
    help="Log in by a cookie; may be given several times, and hold several separated by `;`.",
)
@click.option(
    "--header",
    "headers",
    metavar="NAME:VALUE",
    multiple=True,
    help="Log in by a header, which goes with every request; may be given several times.",
)
@click.option(
    "--say",
    metavar="TEXT",
    default="",
    help="Say this to the app once, and time its answer. Without it nothing is said to the app.",
)
@click.option(
    "--long", "is_long", is_flag=True, help="Also test whether connections survive silence; see --idle."
)
@click.option(
    "--idle",
    metavar="SECONDS",
    type=SECONDS,
    default=_IDLE,
    show_default=True,
    help="How long the silence of --long lasts.",
)
@click.option(
    "--large", is_flag=True, help="Test large uploads, cookies and messages, too: it sends some 30 MB."
)
def doctor(
    url: str,
    as_json: bool,
    cookies: tuple[str, ...],
    headers: tuple[str, ...],
    say: str,
    is_long: bool,
    idle: float,
    large: bool,
) -> None:
    """Examine a deployment of Chainlit from the outside, whatever stands in front of it.

    It asks what a browser asks, with sessions of its own, and says what is broken, why, and what to do. Exit
    code 1: a check failed.
    """
    settings = read(url, cookies, headers, say=say, idle=max(idle, 0.1) if is_long else 0.0, large=large)
    from proxy.doctor import report as shown  # noqa: PLC0415
    from proxy.doctor.examination import examine  # noqa: PLC0415

    with shown.progress(shown=not as_json) as tell:
        report = asyncio.run(examine(settings, tell))
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=2))
    else:
        shown.show(report)
    sys.exit(report.broken)


def read(
    url: str, cookies: tuple[str, ...], headers: tuple[str, ...], *, say: str, idle: float, large: bool
) -> "Settings":
    """What the command was told; ends it with status 2 if that cannot be used, and repeats no secret."""
    from yarl import URL  # noqa: PLC0415 - other commands need nothing of it

    from proxy.doctor.browser import Settings  # noqa: PLC0415

    try:
        address = URL(url)
        if address.scheme not in {"http", "https"} or not address.host or not address.port:
            raise ValueError
    except ValueError:
        fail("URL: must be one such as https://chat.example.com/ or http://127.0.0.1:8000")
    if address.query_string or address.fragment:
        fail("URL: must have no query and no fragment")
    given, kept = login(cookies, headers)
    if address.user is not None:
        user = f"{address.user}:{address.password or ''}".encode()
        given["Authorization"] = f"Basic {b64encode(user).decode()}"
    base = address.with_user(None).with_path(address.path.rstrip("/") or "/")
    return Settings(base, given, kept, say, idle, large)


def login(cookies: tuple[str, ...], headers: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """The fields and cookies of two options; ends the command where it cannot be one, repeats no secret."""
    given, kept = {}, {}
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon or not _TOKEN.fullmatch(name) or not value.strip().isprintable():
            fail("--header: must be NAME:VALUE, the name of letters, digits and dashes, and no line end")
        if name.lower() == "cookie":
            fail("--header: a cookie goes into --cookie")
        given[name] = value.strip()
    for cookie in cookies:
        for pair in filter(None, map(str.strip, cookie.split(";"))):
            name, equals, value = pair.partition("=")
            if not equals or not _TOKEN.fullmatch(name) or not value.isprintable():
                fail("--cookie: must be NAME=VALUE, or several of them separated by `;`")
            kept[name] = value
    return given, kept
