"""What the commands that talk to a running proxy have in common, and what the Tab key offers for it."""

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from proxy.cli.client import AdminClient, AskError
from proxy.cli.failing import fail
from proxy.cli.seconds import Seconds

_ADMIN = "http://127.0.0.1:9901"
_TAB = 0.3  # seconds that somebody who pressed Tab may wait for names

F = TypeVar("F", bound=Callable[..., Any])


SECONDS = Seconds()


def to_a_proxy(command: F) -> F:
    """The options by which the proxy is found; the command ends where it is not, or refuses."""

    @wraps(command)
    def told(*args: Any, **named: Any) -> Any:
        try:
            return command(*args, **named)
        except AskError as error:
            fail(str(error), error.code)

    wrapped: Any = told
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--token", envvar="CHAINLIT_PROXY_TOKEN", help="The admin token, if one is set."),
        click.option(
            "--admin",
            metavar="URL",
            envvar="CHAINLIT_PROXY_ADMIN",
            default=_ADMIN,
            show_default=True,
            help="Where the admin listener is: HOST:PORT or a URL.",
        ),
    ):
        wrapped = option(wrapped)
    result: F = wrapped
    return result


def backend_names(
    ctx: click.Context, _param: click.Parameter | None, incomplete: str
) -> list[CompletionItem]:
    """The backends that begin so, as the Tab key offers them; none if the proxy does not answer at once."""
    given, found = ctx.params, list[str]()

    def ask() -> None:
        with suppress(AskError):
            client = AdminClient(given.get("admin") or _ADMIN, given.get("token"), _TAB)
            found.extend(str(backend["name"]) for backend in client.get_all("/api/backends", "name"))

    asking = threading.Thread(target=ask, daemon=True)  # a name that does not resolve takes its own time
    asking.start()
    asking.join(_TAB)
    return [CompletionItem(name) for name in list(found) if name.startswith(incomplete)]


def one_word(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A name or an id as it was given. Raises BadParameter for what is none, such as an empty variable."""
    if value is not None and (not value or "/" in value):
        what = "the name of a backend" if param.name == "name" else "a session id, a sid or a pin"
        raise click.BadParameter(f'must be {what} (got "{value}")', ctx, param)
    return value


NAME = click.argument("name", metavar="NAME", callback=one_word, shell_complete=backend_names)
