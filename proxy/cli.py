"""The command line. Exit codes: 0 done, 1 it failed while running, 2 the user can put it right."""

import asyncio
import http.client
import json
import os
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

import click
import uvloop

import proxy
from proxy import logs
from proxy.app import App
from proxy.config import Config, ConfigError, SessionSettings, Shared, dump, load, loads, override
from proxy.net import ListenError
from proxy.replicas import LAUNCHER, SHARING, ReplicaError, Supervisor
from proxy.sessions import SharingSettings

BAD_USE = 2
# Without a file, `run` is for one developer at one terminal.
_RUN_DEFAULTS = {"listen": "127.0.0.1:8000", "log.access": False}
_MISLEADING = "Your app is available at"  # Chainlit's line with the port of one replica
_COLUMNS = ("name", "health", "admin_state", "sessions", "tunnels", "pid", "url")  # of `status`
_CONFIG = click.option("-c", "--config", "file", metavar="FILE", help="The configuration, in YAML.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(proxy.__version__, prog_name="chainlit-proxy")
def main() -> None:
    """Make several Chainlit instances behave as one."""


@main.command()
@click.option("-c", "--config", "file", metavar="FILE", required=True, help="The configuration, in YAML.")
def serve(file: str) -> None:
    """Stand in front of Chainlit instances that something else runs."""
    config = _load(file, need_backends=True)
    config = _settled(config, Shared.FALSE)
    logs.set_up(config.log)
    app = App(config)
    _bind(app)
    _run(app)


@main.command()
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
    try:
        config = load(file) if file else override(loads(""), _RUN_DEFAULTS)
        config = override(config, {"listen": listen, "admin.listen": admin})
    except ConfigError as error:
        _fail(str(error))
    if config.backends:
        _fail(f"{file}: backends: must not be set for `run`, its backends are the replicas")
    config = _settled(config, Shared.TRUE)
    logs.set_up(config.log)
    proxy_app = App(config)
    _bind(proxy_app)
    state = Path(tempfile.mkdtemp(prefix="chainlit-proxy-"))
    if config.sessions.shared is Shared.TRUE:
        _tell_replicas(config.sessions, f"sqlite://{state}/sessions/sessions.db")
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
        _fail(str(error), error.exit_code)
    finally:
        shutil.rmtree(state, ignore_errors=True)


@main.command()
@click.argument("app", type=click.Path(path_type=Path))
@click.option(
    "--sessions",
    metavar="URL",
    envvar="CHAINLIT_PROXY_SESSIONS",
    help="The store, such as redis://HOST:PORT.",
)
@_CONFIG
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def replica(app: Path, sessions: str | None, file: str | None, options: tuple[str, ...]) -> None:
    """Start one instance of a Chainlit APP that shares its sessions, in place of `chainlit run`.

    What stands behind `--` goes to `chainlit run`.
    """
    try:
        config = override(load(file) if file else loads(""), {"sessions.store": sessions})
        settings = config.sessions
        if settings.store == "sqlite":
            _fail("--sessions: must name the store that the instances share, such as redis://127.0.0.1:6379")
        _tell_replicas(settings, settings.store).open()
    except (ConfigError, ImportError) as error:
        _fail(str(error))
    os.execv(sys.executable, [sys.executable, "-P", str(LAUNCHER), "run", str(app), *options])  # noqa: S606


@main.command()
@click.option("-c", "--config", "file", metavar="FILE", required=True, help="The configuration, in YAML.")
def check(file: str) -> None:
    """Validate a configuration and print it as it takes effect, secrets masked."""
    click.echo(dump(_load(file, need_backends=True)), nl=False)


@main.command()
@click.option("--admin", metavar="URL", envvar="CHAINLIT_PROXY_ADMIN", default="http://127.0.0.1:9901")
@click.option("--token", envvar="CHAINLIT_PROXY_TOKEN", help="The admin token, where one is set.")
@click.option("--json", "as_json", is_flag=True, help="Print what the API says.")
def status(admin: str, token: str | None, as_json: bool) -> None:
    """Show the backends of a running proxy."""
    backends = _backends(admin, token)
    if as_json:
        click.echo(json.dumps(backends, indent=2))
        return
    rows: list[tuple[str, ...]] = [("BACKEND", "HEALTH", "ADMIN STATE", "SESSIONS", "TUNNELS", "PID", "URL")]
    rows += [tuple("-" if b[column] is None else str(b[column]) for column in _COLUMNS) for b in backends]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(f"{value:<{width}}" for value, width in zip(row, widths, strict=True)).rstrip())


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        """As HTTPRedirectHandler: the redirect is an error."""


def _backends(admin: str, token: str | None) -> list[dict[str, Any]]:
    """The backends of a running proxy."""
    found = _ask(admin, "/api/backends", token)
    wanted = set(_COLUMNS)
    if not isinstance(found, list) or not all(isinstance(b, dict) and wanted <= b.keys() for b in found):
        _nobody(admin, "what it says is no list of backends")
    return found


def _ask(admin: str, path: str, token: str | None) -> Any:
    """GET from the admin API of a running proxy."""
    url = admin.rstrip("/") + path
    if not url.startswith(("http://", "https://")):
        _fail(f"--admin: must be a URL such as http://127.0.0.1:9901 (got {admin!r})")
    token = (token or "").strip()  # from a file it often comes with a line end
    if not all("!" <= character <= "~" for character in token):
        _fail("--token: must be visible ASCII characters without spaces or line ends")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    # The token is for this address alone: it takes no way round by a proxy of the environment or a redirect.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    try:
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - checked above
        with opener.open(request, timeout=10) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 401:
            _fail(f"{url}: needs a valid token, give it with --token or CHAINLIT_PROXY_TOKEN", 1)
        _fail(f"{url}: answered {error.code}", 1)
    except (OSError, ValueError, http.client.HTTPException) as error:
        _nobody(url, " ".join(str(error).split()))


def _nobody(url: str, why: str) -> NoReturn:
    _fail(f"{url}: no proxy answers there ({why}); --admin says where it is", 1)


def _load(file: str, *, need_backends: bool) -> Config:
    try:
        return load(file, need_backends=need_backends)
    except ConfigError as error:
        _fail(str(error))


def _settled(config: Config, default: Shared) -> Config:
    """What `auto` means for a command."""
    is_auto = config.sessions.shared is Shared.AUTO
    return override(config, {"sessions.shared": default}) if is_auto else config


def _tell_replicas(settings: SessionSettings, own: str) -> SharingSettings:
    """Tells the launcher of replicas, which has our environment; `own` is the store where none is named."""
    store = own if settings.store == "sqlite" else settings.store
    told = SharingSettings(store, settings.notice, settings.retry_turn, settings.files, settings.file_limit)
    os.environ[SHARING] = told.to_text()
    return told


def _bind(app: App) -> None:
    try:
        app.bind()
    except ListenError as error:
        _fail(str(error))


def _run(app: App) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(app.run())


def _print_line(line: str) -> None:
    if _MISLEADING in line:
        return
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _fail(message: str, code: int = BAD_USE) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(code)
