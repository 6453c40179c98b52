"""The commands that are the proxy, and the one that is an instance."""

import asyncio
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import uvloop

from proxy import logs, output
from proxy.cli.failing import fail
from proxy.cli.foreign import OurCommand
from proxy.cli.reading import (
    CONFIG,
    FILE,
    FREE_ADMIN,
    again,
    one_file,
    read_for_replica,
    read_for_run,
    read_for_serve,
    root_path,
    warn_of_names,
)
from proxy.cli.telling import not_for_the_app, tell_replicas
from proxy.config import Address, Config, ConfigError
from proxy.config.span import Span
from proxy.net import ListenError, bound_address
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

log = logging.getLogger("proxy")

_F = TypeVar("_F", bound=Callable[..., Any])
_MISLEADING = "Your app is available at"  # Chainlit's line with the port of one replica


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


def _listen(default: str) -> Callable[[_F], _F]:
    return click.option(
        "--listen",
        metavar="HOST:PORT",
        multiple=True,
        help="Where clients connect, :PORT for every interface; may be given several times.  [default: "
        f"`listen` of the file, else {default}]",
    )


def _admin(default: str) -> Callable[[_F], _F]:
    return click.option(
        "--admin",
        metavar="HOST:PORT",
        help=f"Where metrics and the API are.  [default: `admin.listen` of the file, else {default}]",
    )


@click.command(cls=OurCommand)
@click.argument("named", metavar="[FILE]", type=FILE, required=False)
@CONFIG
@_listen("0.0.0.0:8000")
@_admin("127.0.0.1:9901")
def serve(named: str | None, file: str | None, listen: tuple[str, ...], admin: str | None) -> None:
    """Start the proxy in front of Chainlit instances that run on their own.

    FILE is the configuration, `-` is standard input; without one it is proxy.yaml here.
    """
    file = one_file(named, file)
    given = {"listen": list(listen) or None, "admin.listen": admin}
    try:
        config = read_for_serve(file, given)
    except ConfigError as error:
        fail(str(error))
    _run(_bound(config, lambda: read_for_serve(again(file), given)))


@click.command(cls=OurCommand)
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
@_listen("127.0.0.1:8000")
@_admin("127.0.0.1:9901, or a free port if it is taken")
@click.option(
    "--state",
    metavar="DIR",
    type=_Folder(path_type=Path),
    help="A folder for sessions and uploads, which outlive a restart.  [default: $STATE_DIRECTORY, else one "
    "for this app among the user's]",
)
@CONFIG
@click.argument("options", metavar="[-- CHAINLIT-OPTIONS]", nargs=-1, type=click.UNPROCESSED)
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
    """Start N instances of a Chainlit APP, or as many as are needed, and the proxy in front of them.

    Options after `--` go to `chainlit run`.
    """

    def read(file: str | None, admin_default: str = "") -> Config:
        given = {
            "listen": list(listen) or None,
            "admin.listen": admin,
            "tls.acme.domains": list(domains) or None,
            "replicas.count": replicas,
        }
        return read_for_run(file, given, root_path(options), state, admin_default, secrets)

    secrets: set[str] = set()  # variables: of each file that was read
    _not_as_process_1()
    try:
        config = read(file)
    except ConfigError as error:
        fail(str(error))
    otherwise = None if "listen" in config.admin.model_fields_set else _with_free_admin(config)
    proxy_app = _bound(config, lambda: read(None if file is None else again(file), admin_default), otherwise)
    admin_default = FREE_ADMIN if proxy_app.config is otherwise else ""  # for reloads, which keep the port
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
        hidden=lambda: not_for_the_app(secrets),
    )
    supervisor.orphans.adopt()
    if kept_back := sorted(not_for_the_app(secrets)):
        log.info("not handed to the app, as they hold secrets: %s", ", ".join(kept_back))
    try:
        supervisor.prepare()
        proxy_app.replicas.supervise(supervisor)
        _run(proxy_app)
    except ReplicaError as error:
        fail(str(error), error.exit_code)
    finally:
        if own.temporary:
            shutil.rmtree(path, ignore_errors=True)


@click.command(cls=OurCommand)
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
    help="The health.secret of the proxies. Everyone on this machine can read options: use the variable.",
)
@click.option(
    "--most-answers",
    metavar="N",
    type=int,
    envvar="CHAINLIT_PROXY_MOST_ANSWERS",
    help="How many messages to answer at once; others wait for their turn.  [default: "
    "`balance.most_answers` of the file, else any number]",
)
@CONFIG
@click.argument("options", metavar="[-- CHAINLIT-OPTIONS]", nargs=-1, type=click.UNPROCESSED)
def replica(
    app: Path,
    sessions: str | None,
    state: Path | None,
    health_secret: str | None,
    most_answers: int | None,
    file: str | None,
    options: tuple[str, ...],
) -> None:
    """Start one instance of a Chainlit APP that shares its sessions, instead of `chainlit run`.

    Options after `--` go to `chainlit run`.
    """
    _not_as_process_1()
    given: dict[str, Any] = {"sessions.store": sessions, "health.secret": health_secret}
    given["balance.most_answers"] = most_answers
    try:
        secrets: set[str] = set()
        config = read_for_replica(file, given, secrets)
        warn_of_names(config)
        settings = config.sessions
        store = settings.store.get_secret_value()
        if store == "sqlite":
            fail("--sessions: must name the store that the instances share, such as redis://127.0.0.1:6379")
        require_chainlit()
        tell_replicas(config, store, config.health.secret or ()).open()
        for name in not_for_the_app(secrets):
            del os.environ[name]
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


def _not_as_process_1() -> None:
    """In a container: begins again below a keeper, which reaps what others leave to process 1."""
    if os.getpid() == 1:
        command = kept(None, sys.orig_argv)
        os.execv(command[0], command)  # noqa: S606  # our own command line again


def _with_free_admin(config: Config) -> Config:
    """As it is, with any free port for the admin listener."""
    admin = config.admin.model_copy(update={"listen": Address.parse(FREE_ADMIN)})
    return config.model_copy(update={"admin": admin})


def _bound(config: Config, read: Callable[[], Config], otherwise: Config | None = None) -> "App":
    """The app, whose ports are bound before the rest is loaded: who comes meanwhile waits in their queues.

    With the configuration `otherwise` if not all ports of the first can be had.
    """
    ports = Ports()
    try:
        used = ports.bind(config, otherwise)
    except ListenError as error:
        fail(str(error))
    from proxy.app import App  # noqa: PLC0415

    output.take_over()
    logs.set_up(config.log)
    if used is otherwise:
        (admin,) = ports.bound.admin.values()
        where = bound_address(admin).removeprefix("http://")
        log.warning(
            "%s is taken, by another chainlit-proxy perhaps: the admin listener of this one has a free port, "
            "which commands have to name, as in chainlit-proxy status --admin %s",
            config.admin.listen,
            where,
        )
    try:
        return App(used, read, ports)
    except CertificateError as error:
        fail(str(error))


def _run(app: "App") -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(app.run())


def _print_line(line: str) -> None:
    if _MISLEADING not in line:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
