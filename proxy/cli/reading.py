"""How a command comes to its configuration: by argument, option, standard input, or the file that is here.

Options win over the file, the file over the defaults; those of `run` are others than those of `serve`.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Unpack

import click

from proxy.config import Config, ConfigError, Problem, load, loads
from proxy.config.load import STDIN, Options
from proxy.config.names import doubts

# Where neither the file nor an option says otherwise, `run` is for one developer at one terminal.
RUN_DEFAULTS = {"listen": "127.0.0.1:8000", "log.access": False}
FREE_ADMIN = "127.0.0.1:0"
"""Where the admin listener of `run` is if its default is taken and nobody has named another address."""
FILE = click.Path(readable=False)  # completed by the Tab key; what is wrong is said when it is read
CONFIG = click.option("-c", "--config", "file", metavar="FILE", type=FILE, help="The configuration (YAML).")


def one_file(named: str | None, option: str | None) -> str:
    """The file of an argument or of -c."""
    if named is not None and option is not None:
        raise click.UsageError("the file is given twice: as FILE and with -c")
    if named is None and option is None and not Path("proxy.yaml").exists():
        raise click.UsageError("no FILE is given, and this folder has no proxy.yaml")
    return next((file for file in (named, option) if file is not None), "proxy.yaml")


def warn_of_names(config: Config) -> None:
    """Say which names of hosts may end up at a stranger."""
    for text in doubts(config):
        click.echo(text, err=True)


def root_path(options: Sequence[str], environ: Mapping[str, str] = os.environ) -> str:
    """The root path that Chainlit's options or the environment give it; empty: none that is known."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--root-path", default=environ.get("CHAINLIT_ROOT_PATH", ""))
    with suppress(argparse.ArgumentError):
        given: str = parser.parse_known_args(options)[0].root_path
        return given.rstrip("/") if given.startswith("/") else ""
    return ""  # Chainlit says what is wrong


def read_for_serve(file: str, changes: Mapping[str, Any]) -> Config:
    """Options first, then the file, then the defaults. Raises ConfigError."""
    return _with_sharing(load(file, need_backends=True, changes=changes), sharing=False)


def defaults_of(command: str) -> Config:
    """What `serve` or `run` has where its file is silent."""
    if command == "run":
        return read_for_run(None, {}, "", None)
    return _with_sharing(loads(""), sharing=False)


def read_for_replica(file: str | None, changes: Mapping[str, Any], secret_variables: set[str]) -> Config:
    """Options first, then the file, then the defaults. Raises ConfigError."""
    return _read(file, changes=changes, need_store=True, secret_variables=secret_variables)


def read_for_run(
    file: str | None,
    changes: Mapping[str, Any],
    root: str,
    state: Path | None,
    admin: str = "",
    secret_variables: set[str] | None = None,
) -> Config:
    """Options first, then the file, then the defaults of `run`, key by key. Raises ConfigError.

    `admin` is where its listener is if nobody names another address; empty: at the default.
    `secret_variables` is as in `Options`.
    """
    noted = set[str]() if secret_variables is None else secret_variables
    below = {"affinity.roots": root, "health.path": f"{root}/health"} if root else {}
    defaults = {**RUN_DEFAULTS, **below, **({"admin.listen": admin} if admin else {})}
    acme = {"tls.acme.folder": str(state.absolute() / "acme")} if state else {}
    config = _read(
        file, defaults=defaults, changes=changes, acme=acme, need_store=True, secret_variables=noted
    )
    given = [
        *(["backends"] if config.backends else []),
        *(f"discovery.{name}" for name in config.discovery.parts()),
    ]
    if given:
        message = "must not be set for `run`, its backends are the replicas"
        raise ConfigError([Problem(str(file), None, key, message) for key in given])
    return can_limit(_with_sharing(config, sharing=True), file)


def _read(file: str | None, **options: Unpack[Options]) -> Config:
    """The file, where there is one. Raises ConfigError."""
    return load(file, **options) if file is not None else loads("", **options)


def again(file: str) -> str:
    """The file, to be read once more. Raises ConfigError for a pipe: what it held has gone."""
    path = Path(file)
    if file == STDIN or (path.exists() and not path.is_file()):
        raise ConfigError([Problem(file, None, "", "cannot be read again: it is a pipe or a device")])
    return file


def _with_sharing(config: Config, *, sharing: bool) -> Config:
    """What `auto` means for a command."""
    if config.sessions.shared != "auto":
        return config
    sessions = config.sessions.model_copy(update={"shared": sharing})
    return config.model_copy(update={"sessions": sessions})


def can_limit(config: Config, file: str | None) -> Config:
    """The same, for replicas. Raises ConfigError where they cannot have messages wait."""
    if config.balance.most_answers and config.sessions.shared is not True:
        text = "must be 0 where sessions.shared is false: what has messages wait is a part of sharing"
        raise ConfigError([Problem(str(file), None, "balance.most_answers", text)])
    return config
