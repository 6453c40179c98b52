"""The commands that are the proxy, and the one that looks at its configuration."""

import argparse
import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click
import uvloop

from proxy import logs, output
from proxy.cli.failing import fail
from proxy.cli.telling import can_limit, tell_replicas
from proxy.config import Config, ConfigError, Problem, dump, load, loads
from proxy.config.load import STDIN, Options
from proxy.config.names import doubts
from proxy.config.values import Span
from proxy.net import ListenError
from proxy.ports import Ports
from proxy.replicas import (
    LAUNCHER,
    ReplicaError,
    Supervisor,
    folder,
    kept,
    require_chainlit,
)
from proxy.replicas import (
    check as check_app,
)
from proxy.tls import CertificateError

if TYPE_CHECKING:
    from proxy.app import App

# Where neither the file nor an option says otherwise, `run` is for one developer at one terminal.
RUN_DEFAULTS = {"listen": "127.0.0.1:8000", "log.access": False}
# May hold a password, and is not for what the app starts.
_SECRETS = ("CHAINLIT_PROXY_SESSIONS", "CHAINLIT_PROXY_HEALTH_SECRET")
_MISLEADING = "Your app is available at"  # Chainlit's line with the port of one replica
_CONFIG = click.option("-c", "--config", "file", metavar="FILE", help="The configuration, in YAML.")


class _Folder(click.Path):
    """Where an option was given a variable without a value, that is no wish for the folder we are in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click.Path."""
        if value == "":
            self.fail("it must be the name of a folder", param, ctx)
        return super().convert(value, param, ctx)


class _Replicas(click.ParamType[int | str]):
    """A number of instances, or the bounds of it."""

    name = "replicas"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click.ParamType."""
        try:
            return Span.parse(value).plain()
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.argument("named", metavar="[FILE]", required=False)
@_CONFIG
def serve(named: str | None, file: str | None) -> None:
    """Stand in front of Chainlit instances that something else runs.

    FILE is the configuration, `-` is standard input; without one it is proxy.yaml here.
    """
    file = _one_file(named, file)
    config = _with_sharing(_load(file, need_backends=True), sharing=False)
    app = _bound(config, lambda: _with_sharing(load(_again(file), need_backends=True), sharing=False))
    _run(app)


@click.command()
@click.argument("app", type=click.Path(path_type=Path))
@click.option(
    "--replicas",
    metavar="N|LOW..HIGH",
    type=_Replicas(),
    help="How many instances to start, or between how many as they are needed, such as 2..8.  [default: "
    "`replicas.count` of the file, else 2]",
)
@click.option(
    "--domain",
    "domains",
    metavar="NAME",
    multiple=True,
    help="Serve HTTPS under this name, on ports 443 and 80, with a certificate from Let's Encrypt; may be "
    "given several times.",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    multiple=True,
    help="Where clients connect, :PORT for every interface; may be given several times.  [default: `listen` "
    "of the file, else 127.0.0.1:8000]",
)
@click.option(
    "--admin",
    metavar="HOST:PORT",
    help="Where metrics and the API are.  [default: `admin.listen` of the file, else 127.0.0.1:9901]",
)
@click.option(
    "--state",
    metavar="DIR",
    type=_Folder(path_type=Path),
    help="A folder for sessions and uploads, which outlive a restart.  [default: $STATE_DIRECTORY, else one "
    "for this app among the user's]",
)
@_CONFIG
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def run(
    app: Path,
    replicas: int | str | None,
    domains: tuple[str, ...],
    listen: tuple[str, ...],
    admin: str | None,
    state: Path | None,
    file: str | None,
    options: tuple[str, ...],
) -> None:
    """Start N instances of a Chainlit APP, or as many as are needed, and the proxy before them.

    What stands behind `--` goes to `chainlit run`.
    """

    def read(file: str | None) -> Config:
        given = {
            "listen": list(listen) or None,
            "admin.listen": admin,
            "tls.acme.domains": list(domains) or None,
            "replicas.count": replicas,
        }
        return _read_for_run(file, given, root_path(options), state)

    _not_as_process_1()
    try:
        config = read(file)
    except ConfigError as error:
        fail(str(error))
    proxy_app = _bound(config, lambda: read(None if file is None else _again(file)))
    try:
        check_app(app, options)
        own = folder.of_run(state, app)
    except (ReplicaError, folder.FolderError) as error:
        fail(str(error))
    path = own.path.absolute()
    if config.sessions.shared is True:
        tell_replicas(config, f"sqlite://{path}/sessions/sessions.db")
    supervisor = Supervisor(
        app,
        config.replicas.count.low,
        options=options,
        state=path / "replicas",
        output=_print_line,
        on_event=proxy_app.replicas.heard,
        held=[own.lock],
        ready_path=config.health.path,
        start_timeout=lambda: proxy_app.config.replicas.start_timeout,
    )
    supervisor.orphans.adopt()
    try:
        supervisor.prepare()
        proxy_app.replicas.supervise(supervisor)
        _run(proxy_app)
    except ReplicaError as error:
        fail(str(error), error.exit_code)
    finally:
        if own.temporary:
            shutil.rmtree(path, ignore_errors=True)


@click.command()
@click.argument("app", type=click.Path(path_type=Path))
@click.option(
    "--sessions",
    metavar="URL",
    envvar="CHAINLIT_PROXY_SESSIONS",
    help="The store, such as redis://HOST:PORT.",
)
@click.option(
    "--state",
    metavar="DIR",
    type=_Folder(path_type=Path),
    help="A folder for the uploads of this instance alone.  [default: a temporary one]",
)
@click.option(
    "--health-secret",
    metavar="TEXT",
    envvar="CHAINLIT_PROXY_HEALTH_SECRET",
    help="The health.secret of the proxies. Everybody here can read an option: prefer the variable.",
)
@click.option(
    "--most-answers",
    metavar="N",
    type=int,
    envvar="CHAINLIT_PROXY_MOST_ANSWERS",
    help="How many messages to answer at once; the others wait for their turn.  [default: "
    "`balance.most_answers` of the file, else any number]",
)
@_CONFIG
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def replica(
    app: Path,
    sessions: str | None,
    state: Path | None,
    health_secret: str | None,
    most_answers: int | None,
    file: str | None,
    options: tuple[str, ...],
) -> None:
    """Start one instance of a Chainlit APP that shares its sessions, in place of `chainlit run`.

    What stands behind `--` goes to `chainlit run`.
    """
    _not_as_process_1()
    given: dict[str, Any] = {"sessions.store": sessions, "health.secret": health_secret}
    given["balance.most_answers"] = most_answers
    try:
        config = _read(file, changes=given, need_store=True)
        _warn_of_names(config)
        settings = config.sessions
        store = settings.store.get_secret_value()
        if store == "sqlite":
            fail("--sessions: must name the store that the instances share, such as redis://127.0.0.1:6379")
        require_chainlit()
        tell_replicas(config, store, config.health.secret or ()).open()
        for name in _SECRETS:
            os.environ.pop(name, None)
        own = folder.named(state) if state else folder.temporary()
    except (ConfigError, ImportError, ReplicaError, folder.FolderError) as error:
        fail(str(error))
    # Only what is below a folder that was named is ours to clean.
    where = (
        ["--state", str(own.path), "--temporary"] if own.temporary else ["--state", str(own.path / "replica")]
    )
    command = [
        sys.executable,
        "-P",
        str(LAUNCHER),
        *where,
        "--lock",
        str(own.lock),
        "run",
        str(app),
        *options,
    ]
    os.execv(sys.executable, command)  # noqa: S606  # our own launcher


@click.command()
@click.argument("named", metavar="[FILE]", required=False)
@_CONFIG
@click.option(
    "--for",
    "command",
    type=click.Choice(["serve", "run"]),
    default="serve",
    show_default=True,
    help="The command that is to read the file: `run` has no backends, and other defaults.",
)
@click.option("--quiet", is_flag=True, help="Print nothing but mistakes.")
def check(named: str | None, file: str | None, command: str, *, quiet: bool) -> None:
    """Validate a configuration and print it as it takes effect, secrets masked.

    FILE is the configuration, `-` is standard input; without one it is proxy.yaml here.
    """
    file = _one_file(named, file)
    try:
        config = _read_for_run(file, {}, "", None) if command == "run" else load(file, need_backends=True)
    except ConfigError as error:
        fail(str(error))
    if not quiet:
        _warn_of_names(config)
        click.echo(dump(config), nl=False)


def _one_file(named: str | None, option: str | None) -> str:
    """The file of an argument or of -c."""
    if named is not None and option is not None:
        raise click.UsageError("FILE must be left out beside -c")
    if named is None and option is None and not Path("proxy.yaml").exists():
        raise click.UsageError("no FILE is named, and there is no proxy.yaml here")
    return next((file for file in (named, option) if file is not None), "proxy.yaml")


def _warn_of_names(config: Config) -> None:
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


def _read_for_run(file: str | None, changes: Mapping[str, Any], root: str, state: Path | None) -> Config:
    """Options first, then the file, then the defaults of `run`, key by key. Raises ConfigError."""
    below = {"affinity.roots": root, "health.path": f"{root}/health"} if root else {}
    defaults = {**RUN_DEFAULTS, **below}
    acme = {"tls.acme.folder": str(state.absolute() / "acme")} if state else {}
    config = _read(file, defaults=defaults, changes=changes, acme=acme, need_store=True)
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


def _again(file: str) -> str:
    """The file, to be read once more. Raises ConfigError for a pipe: what it held has gone."""
    path = Path(file)
    if file == STDIN or (path.exists() and not path.is_file()):
        raise ConfigError([Problem(file, None, "", "cannot be read again: it is a pipe or a device")])
    return file


def _load(file: str, *, need_backends: bool) -> Config:
    try:
        return load(file, need_backends=need_backends)
    except ConfigError as error:
        fail(str(error))


def _with_sharing(config: Config, *, sharing: bool) -> Config:
    """What `auto` means for a command."""
    if config.sessions.shared != "auto":
        return config
    sessions = config.sessions.model_copy(update={"shared": sharing})
    return config.model_copy(update={"sessions": sessions})


def _not_as_process_1() -> None:
    """In a container: begins again below a keeper, which reaps what others leave to process 1."""
    if os.getpid() == 1:
        command = kept(None, sys.orig_argv)
        os.execv(command[0], command)  # noqa: S606  # our own command line again


def _bound(config: Config, read: Callable[[], Config]) -> "App":
    """The app, whose ports are bound before the rest is loaded: who comes meanwhile waits in their queues."""
    ports = Ports()
    try:
        ports.bind(config)
    except ListenError as error:
        fail(str(error))
    from proxy.app import App  # noqa: PLC0415

    output.take_over()
    logs.set_up(config.log)
    try:
        return App(config, read, ports)
    except CertificateError as error:
        fail(str(error))


def _run(app: "App") -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(app.run())


def _print_line(line: str) -> None:
    if _MISLEADING in line:
        return
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
