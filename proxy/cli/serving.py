"""The commands that are the proxy, and the one that looks at its configuration."""

import asyncio
import sys
import tempfile
from pathlib import Path

import click
import uvloop

from proxy import logs
from proxy.app import App
from proxy.cli.failing import fail
from proxy.config import Config, ConfigError, Problem, dump, load, loads, override
from proxy.net import ListenError
from proxy.replicas import ReplicaError, Supervisor

# Without a file, `run` is for one developer at one terminal.
_RUN_DEFAULTS = {"listen": "127.0.0.1:8000", "log.access": False}
_MISLEADING = "Your app is available at"  # Chainlit's line with the port of one replica
_CONFIG = click.option("-c", "--config", "file", metavar="FILE", help="The configuration, in YAML.")


@click.command()
@click.option("-c", "--config", "file", metavar="FILE", required=True, help="The configuration, in YAML.")
def serve(file: str) -> None:
    """Stand in front of Chainlit instances that something else runs."""
    config = _load(file, need_backends=True)
    logs.set_up(config.log)
    app = App(config, lambda: load(file, need_backends=True))
    _bind(app)
    _run(app)


@click.command()
@click.argument("app", type=click.Path(path_type=Path))
@click.option("--replicas", metavar="N", type=click.IntRange(1, 256), default=2, show_default=True)
@click.option("--listen", metavar="HOST:PORT", help="Where clients connect.  [default: 127.0.0.1:8000]")
@click.option(
    "--admin", metavar="HOST:PORT", help="Where metrics and the API are.  [default: 127.0.0.1:9901]"
)
@_CONFIG
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def run(
    app: Path,
    replicas: int,
    listen: str | None,
    admin: str | None,
    file: str | None,
    options: tuple[str, ...],
) -> None:
    """Start N instances of a Chainlit APP and the proxy before them.

    What stands behind `--` goes to `chainlit run`.
    """

    def read() -> Config:
        config = load(file) if file else override(loads(""), _RUN_DEFAULTS)
        if config.backends:
            message = "must not be set for `run`, its backends are the replicas"
            raise ConfigError([Problem(str(file), None, "backends", message)])
        return override(config, {"listen": listen, "admin.listen": admin})

    try:
        config = read()
    except ConfigError as error:
        fail(str(error))
    logs.set_up(config.log)
    proxy_app = App(config, read)
    _bind(proxy_app)
    state = Path(tempfile.mkdtemp(prefix="chainlit-proxy-"))
    supervisor = Supervisor(
        app,
        replicas,
        options=options,
        state=state,
        output=_print_line,
        on_event=proxy_app.replica_event,
        ready_path=config.health.path,
    )
    try:
        supervisor.prepare()
        proxy_app.supervise(supervisor)
        _run(proxy_app)
    except ReplicaError as error:
        fail(str(error), error.exit_code)


@click.command()
@click.option("-c", "--config", "file", metavar="FILE", required=True, help="The configuration, in YAML.")
def check(file: str) -> None:
    """Validate a configuration and print it as it takes effect, secrets masked."""
    click.echo(dump(_load(file, need_backends=True)), nl=False)


def _load(file: str, *, need_backends: bool) -> Config:
    try:
        return load(file, need_backends=need_backends)
    except ConfigError as error:
        fail(str(error))


def _bind(app: App) -> None:
    try:
        app.bind()
    except ListenError as error:
        fail(str(error))


def _run(app: App) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(app.run())


def _print_line(line: str) -> None:
    if _MISLEADING in line:
        return
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
