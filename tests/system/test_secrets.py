"""Secrets of the operator and of clients are in nothing that the program says."""

import asyncio
import os
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.dataplane.peers import SMALL, Peer, get, post
from tests.soak.processes import Instance, port_of, proxy_before
from tests.support.proxy_process import COMMAND, ROOT, ProxyProcess

pytestmark = pytest.mark.system

TOKEN, OLD, NEW, GUESS = "tok-hunter1", "pins-hunter2", "pins-hunter3", "guess-hunter4"
LOGIN, KEY, SESSION = "jwt-hunter5", "key-hunter6", "11111111-2222-3333-4444-hunter7"


def admin(proxy: ProxyProcess, path: str, token: str | None, *, method: str = "GET") -> str:
    """Status, fields and body of an admin answer."""
    asked = urllib.request.Request(f"{proxy.admin}{path}", method=method)
    if token is not None:
        asked.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return f"{answer.status} {answer.headers} {answer.read().decode()}"
    except urllib.error.HTTPError as error:
        with error:
            return f"{error.code} {error.headers} {error.read().decode()}"


def command(*arguments: str) -> str:
    """What a command prints."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.stdout + done.stderr


async def traffic(port: int) -> str:
    """Requests that are served, refused and cut off; what they were answered."""
    lines = (b"Cookie: access_token=%b" % LOGIN.encode(), b"Authorization: Bearer %b" % KEY.encode())
    session = SESSION.encode()
    heard = []
    for request in (
        get(b"/public/film?times=1&chunked=0&session_id=" + session, *lines, b"X-Nonce: x"),
        post(b"/set-session-cookie", b'{"session_id":"%b"}' % session, *lines),
        get(b"/ws/socket.io/?EIO=4&transport=polling&sid=forged." + session, *lines),
        get(b"/project/file/x?session_id=%b&api_key=%b" % (session, KEY.encode()), *lines),
        get(b"/x", *lines, b"Bad : " + KEY.encode()),
        get(b"/x", *lines, b"Expect: " + KEY.encode()),
        get(b"/x", *lines, *[b"X: " + KEY.encode()] * 200),
        post(b"/x", b"x" * 100, *lines, b"Transfer-Encoding: " + KEY.encode()),
    ):
        peer = Peer(*await asyncio.open_connection("127.0.0.1", port, limit=SMALL))
        answer = await peer.say(request).response()
        heard.append(f"{answer.start!r} {answer.lines} {answer.body!r}")
        peer.close()
    return "\n".join(heard)


def test_no_secret_is_told(tmp_path: Path) -> None:
    """Not by the log at its most talkative, answers, errors, metrics, the API, `check` or `status`."""
    instance = Instance(tmp_path, "a", "chat")
    with proxy_before(
        tmp_path,
        [instance],
        log={"access": True, "level": "debug", "format": "json"},
        affinity={"secret": [NEW, OLD]},
    ) as proxy:
        proxy.stop()
        proxy.config["admin"]["token"] = TOKEN
        proxy.start()
        told = {
            "answers": asyncio.run(traffic(port_of(proxy))),
            "metrics": proxy.get("/metrics"),
            "without a token": admin(proxy, "/api/backends", None),
            "with another": admin(proxy, "/api/backends", GUESS),
            "with it": admin(proxy, "/api/backends", TOKEN),
            "wrong method": admin(proxy, "/api/backends", TOKEN, method="PUT"),
            "status": command("status", "--admin", proxy.admin, "--token", TOKEN),
            "wrong status": command("status", "--admin", proxy.admin, "--token", GUESS),
            "check": command("check", "--print", "-c", str(proxy.file)),
        }
        instance.kill9()
        told["answers of none"] = asyncio.run(traffic(port_of(proxy)))
        proxy.stop()
        bad = tmp_path / "bad.yaml"
        bad.write_text(proxy.file.read_text() + f"tls: {{cert: /nowhere/{KEY}, key: x}}\nxyz: {TOKEN}\n")
        told["errors of check"] = command("check", "-c", str(bad)).replace(f"/nowhere/{KEY}", "")
        told["log"] = proxy.log.read_text()
    assert told["with it"].startswith("200 ")
    assert told["with another"].startswith("401 ")
    assert "***" in told["check"]
    assert '"path":"/project/file/x"' in told["log"]
    assert [where for where, text in told.items() if "hunter" in text] == []
