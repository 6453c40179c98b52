"""Options that other programs have, and commands that nobody has: what is said of them."""

import pytest
from click.testing import CliRunner, Result

from proxy.cli import main


def _call(*args: str) -> Result:
    return CliRunner().invoke(main, args)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--port 9000", "--port: say --listen 127.0.0.1:9000"),
        ("--port=9000", "--port: say --listen 127.0.0.1:9000"),
        ("-p 9000", "-p: say --listen 127.0.0.1:9000"),
        ("--host 0.0.0.0 --port 9000", "--host: say --listen 0.0.0.0:9000"),
        ("--port 9000 --host ::", "--port: say --listen [::]:9000"),
        ("--bind 0.0.0.0:80", "--bind: say --listen 0.0.0.0:80"),
        ("--port", "--port: say --listen 127.0.0.1:8000"),
        ("-n 4", "-n: say --replicas 4"),
        ("--workers 6", "--workers: say --replicas 6"),
        ("-w 4", "-w: say --replicas 4"),
        ("-w", "-w: each replica would reload by itself, and its sessions be lost; after a change say"),
        ("--watch", "--watch: each replica would reload by itself"),
        ("--reload", "--reload: each replica would reload by itself"),
        ("--headless", "--headless: leave it out, replicas open no browser"),
        ("--root-path /chat", "behind --: chainlit-proxy run app.py -- --root-path /chat"),
        ("--debug", "--debug: an option of Chainlit goes behind --: chainlit-proxy run app.py -- --debug"),
        ("-d", "-d: an option of Chainlit goes behind --"),
        (
            "--ssl-cert a.pem",
            "--ssl-cert: the proxy ends TLS, see `tls` in its configuration, or say --domain",
        ),
    ],
)
def test_run_says_what_to_say_instead(options: str, told: str) -> None:
    """Before the app and behind it, with the value that was meant."""
    for args in ((*options.split(), "app.py"), ("app.py", *options.split())):
        if options == "--port" and args[-1] == "app.py":
            continue  # the app would be the port
        result = _call("run", *args)
        assert (result.exit_code, result.stdout) == (2, "")
        assert told in result.stderr


def test_what_stands_behind_the_dashes_is_no_value() -> None:
    """It is for Chainlit."""
    assert "say --listen 127.0.0.1:8000\n" in _call("run", "app.py", "--host", "--", "--port", "1").stderr


def test_replica_says_where_options_of_chainlit_go() -> None:
    """It is `chainlit run` in all but the sessions: its port is set there."""
    told = "--port: an option of Chainlit goes behind --: chainlit-proxy replica app.py -- --port 8001"
    assert told in _call("replica", "app.py", "--port", "8001").stderr
    assert "replica app.py -- --headless" in _call("replica", "--headless", "app.py").stderr


def test_serve_has_no_port_of_its_own() -> None:
    """It says where the address goes; what belongs to Chainlit is an unknown option there."""
    assert "--port: say --listen 127.0.0.1:9000" in _call("serve", "--port", "9000").stderr
    assert "No such option '--headless'" in _call("serve", "--headless").stderr


def test_an_option_of_nobody_is_unknown() -> None:
    """Click's own words stay."""
    assert "No such option '--frobnicate'" in _call("run", "app.py", "--frobnicate").stderr


def test_the_usage_tells_two_kinds_of_options() -> None:
    """Ours before the app, Chainlit's behind `--`."""
    assert "run [OPTIONS] APP [-- CHAINLIT-OPTIONS]\n" in _call("run", "--help").stdout
    assert "replica [OPTIONS] APP [-- CHAINLIT-OPTIONS]\n" in _call("replica", "--help").stdout


def test_the_version_is_told_in_all_three_ways() -> None:
    """As other programs of this kind have them."""
    told = _call("--version").stdout
    assert _call("-V").stdout == _call("version").stdout == told
    assert told.startswith("chainlit-proxy, version ")


def test_a_typo_is_told_with_what_was_meant() -> None:
    """The nearest command, where there is one."""
    assert "No such command 'serv'. Did you mean 'serve'?" in _call("serv").stderr
    assert "Did you mean" not in _call("fly").stderr
