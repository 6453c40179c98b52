"""What to say of options that other programs have and ours have not.

Who comes from `chainlit run` or uvicorn has `--port`, `--workers` and `--headless` in their fingers. Behind
`--` options go to Chainlit, and those that it must not have are refused by `proxy.replicas`.
"""

from collections.abc import Sequence

import click

from proxy.replicas import REFUSED

_PORT, _HOST, _BIND = {"--port", "-p"}, {"--host"}, {"--bind", "-b"}
_COUNT = {"--workers", "-n", "--processes", "--instances", "--replica", "-r"}
_WATCH = {"--watch", "-w", "--reload"}
_TLS = {"--ssl-cert", "--ssl-key", "--ssl-certfile", "--ssl-keyfile"}
_HEADLESS = {"--headless"}
_OTHERS = {"--root-path", "--debug", "-d", "--ci", "--no-cache"}  # chainlit/cli/__init__.py
_OF_CHAINLIT = {"--port", "--host", "--watch", "-w", "--ssl-cert", "--ssl-key"} | _HEADLESS | _OTHERS


class OurCommand(click.Command):
    """One that is started in place of `chainlit run` or behind another proxy's habits."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click.Command."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if text := hint(str(self.name), error.option_name, given):
                raise click.UsageError(f"{error.option_name}: {text}", ctx) from None
            raise


def hint(command: str, option: str, given: Sequence[str]) -> str:
    """What to say in place of an option, to a command that got all of these; empty: nobody knows."""
    value = _value(option, given)
    if command == "replica":
        return _behind(command, option, value) if option in _OF_CHAINLIT else ""
    if option in _PORT | _HOST | _BIND:
        return f"say --listen {_address(given)}"
    if command == "serve":
        return ""
    if option == "-w" and value.isdecimal():  # that of gunicorn
        return f"say --replicas {value}"
    if option in _COUNT:
        return f"say --replicas {value or 4}"
    if option in _WATCH:
        return f"{REFUSED['--watch']}; after a change say chainlit-proxy rollout"
    if option in _TLS:
        return f"{REFUSED['--ssl-cert']}, or say --domain"
    if option in _HEADLESS:
        return "leave it out, replicas open no browser"
    return _behind(command, option, value) if option in _OTHERS else ""


def _behind(command: str, option: str, value: str) -> str:
    shown = f"{option} {value}".rstrip() if option in {"--root-path", "--port", "--host"} else option
    return f"an option of Chainlit goes behind --: chainlit-proxy {command} app.py -- {shown}"


def _address(given: Sequence[str]) -> str:
    """Where somebody wants to listen."""
    host = next((value for name in sorted(_HOST) if (value := _value(name, given))), "127.0.0.1")
    port = next((value for name in sorted(_PORT) if (value := _value(name, given))), "8000")
    bind = next((value for name in sorted(_BIND) if (value := _value(name, given))), "")
    return bind or f"{f'[{host}]' if ':' in host else host}:{port}"


def _value(option: str, given: Sequence[str]) -> str:
    """What an option was given, empty if nothing; what is behind `--` is not ours."""
    own = given[: given.index("--")] if "--" in given else given
    for word, after in zip(own, [*own[1:], ""], strict=True):
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
        if word == option and not after.startswith("-"):
            return after
    return ""
