"""`chainlit-proxy hook`: an instance tells every proxy that it goes or is back, or asks if they take it.

For the hooks and the readiness of a pod and the like, which run beside the app. All addresses of a name are
told at once, also one that joins meanwhile: proxies share nothing. A drain is over when each has *said* that
the instance is empty, or that it has left: one that discovery finds no more leaves when it is empty, perhaps
before the first question. Who cannot be told is asked again until the time is up; only where for a while
nobody listens, or the instance was never known, no session of it can be, and somebody else has to say that
it is empty. One that had sessions and is named no more is waited for as long: its clients are on their way to
the others.
All that fails is said, also in the log of the container, since the output of a hook is shown nowhere else,
and ends the command with status 1. The token is read anew for each question: a mounted Secret may change.
"""

import contextlib
import json
import re
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from proxy.cli.client import DIRECT, whole
from proxy.cli.failing import fail
from proxy.cli.options import SECONDS

LOOK = 1.0  # seconds between two questions
LATE = 5.0  # seconds that a proxy may take longer than it was given
PATIENCE = 5.0  # seconds for an answer
NAMED = 2.0  # seconds for DNS: with those for an answer less than a readiness probe may take
GONE = 15.0  # seconds after which a proxy that refuses connections, or that DNS names no more, has ended
BACK = 20.0  # seconds in which `ready` is said again: a new pod's first packets may be dropped
LOG = "/proc/1/fd/2"  # standard error of the container
_MOST = 32  # proxies that are asked at once
_TOKEN = re.compile(r"[!-~]+")  # as admin.hook_token
_MEANINGS = {
    401: "the token is wrong: it must be admin.hook_token of the proxy, or admin.token",
    403: "the token is good for the backend at this address alone: is --name what the proxy calls it?",
    404: "it does not know this instance: is it among its backends, by this name?",
    410: "this instance has left its backends",
}


class _Failed(Exception):  # noqa: N818 - what happened
    """A proxy could not be told. `holds_nothing`: nobody listens there, or it knows no such backend.

    `refuses`: it has answered, and will answer so again. `has_let_go`: the backend is none of its any more.
    """

    def __init__(
        self, why: str, *, holds_nothing: bool = False, refuses: bool = False, has_let_go: bool = False
    ) -> None:
        super().__init__(why)
        self.holds_nothing, self.refuses, self.has_let_go = holds_nothing, refuses, has_let_go


@click.command()
@click.argument("wish", type=click.Choice(["drain", "ready", "taken"]))
@click.option(
    "--proxies",
    metavar="HOST:PORT",
    envvar="CHAINLIT_PROXY_ADMIN",
    default="127.0.0.1:9901",
    show_default=True,
    help="The admin listeners: all addresses of the name, such as that of a headless Service.",
)
@click.option("--name", metavar="NAME", help="What the backend is called.  [default: the name of this host]")
@click.option(
    "--token-file",
    metavar="FILE",
    type=click.Path(readable=False),
    help="A file that holds admin.hook_token; it is read for each question.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=SECONDS,
    default=300.0,
    show_default=True,
    help="Seconds until the remaining sessions are moved, finished or not.",
)
def hook(wish: str, proxies: str, name: str | None, token_file: str | None, timeout: float) -> None:
    """Tell all proxies that this instance goes (drain) or is back (ready), or ask if they take it (taken).

    A drain takes no new sessions, returns when all proxies say that the instance is empty, and ends by itself
    when it was restarted. Status 1: some proxy did not say so in time. `ready` is a courtesy and never fails.
    `taken` is for a readiness probe. Status 1: for some proxy this instance is not healthy, or still drains
    for its restart. Who cannot be asked says nothing.
    """
    host, colon, port = proxies.removeprefix("http://").rstrip("/").rpartition(":")
    if not (
        colon and re.fullmatch("[0-9]{1,5}", port) and int(port) < 1 << 16 and re.fullmatch("[^/@]+", host)
    ):
        fail(f"--proxies: must be HOST:PORT, such as chainlit-proxy-admin:9901 (got {proxies!r})")
    told = _Hook(host.strip("[]"), int(port), name or socket.gethostname(), token_file)
    if wish == "taken":
        if untaken := told.not_taken():
            fail("; ".join(untaken), code=1)
    elif wish == "ready":
        told.ready()
    elif not told.drain(timeout):
        sys.exit(1)


class _Hook:
    """One instance, and all proxies; made by the command."""

    def __init__(self, host: str, port: int, name: str, token_file: str | None) -> None:
        self._host, self._port, self._name, self._token_file = host, port, name, token_file
        self._said: set[str] = set()
        self._told: set[str] = set()  # proxies that were told of the drain
        self._silent: dict[str, float] = {}  # proxies that hold nothing, it seems, and since when
        self._named: set[str] = set()  # proxies, as DNS said last
        self._busy: set[str] = set()  # proxies that said last that sessions are left
        self._question: Future[set[str]] | None = None  # to DNS, while it is under way
        self._deadline = 0.0
        self._until = 0.0  # when proxies have to have answered what they are asked now

    def drain(self, seconds: float) -> bool:
        """Have this instance emptied; return whether all proxies say that it is."""
        self._deadline = time.monotonic() + seconds
        with ThreadPoolExecutor(_MOST) as threads:
            while True:
                answers = self._all(threads, self._look) + self._of_missing()
                if answers and all(answer in {"empty", "gone"} for answer in answers):
                    if "empty" in answers:
                        return True
                    self._say("no proxy says that it is empty: none knows of it, or none is there")
                    return False
                if time.monotonic() > self._deadline + LATE:
                    left = {
                        "draining": "sessions are left",
                        "silent": "some do not answer",
                        "gone": "no such backend",
                    }
                    why = sorted({left.get(answer, answer) for answer in answers if answer != "empty"})
                    self._say(f"the time is up, and not all proxies say that it is empty: {'; '.join(why)}")
                    return False
                time.sleep(LOOK)

    def ready(self) -> None:
        """Have a drain of this instance ended.

        A failed postStart would end the container, and the proxies notice a restart by themselves.
        """
        self._deadline = time.monotonic() + BACK
        done: set[str] = set()

        def tell(proxy: str) -> str:
            if proxy not in done:
                try:
                    self._ask(proxy, "/ready", {"until": "restart"})
                except _Failed as error:
                    if not error.holds_nothing:
                        return str(error)
                    self._say(str(error))
                done.add(proxy)
            return ""

        with ThreadPoolExecutor(_MOST) as threads:
            while any(self._all(threads, tell)):
                if time.monotonic() > self._deadline:
                    self._say("not all proxies were told: they will notice by themselves")
                    return
                time.sleep(LOOK)

    def not_taken(self) -> list[str]:
        """What proxies say that do not take this instance, each with its reason."""

        def ask(proxy: str) -> str:
            try:
                backend = self._ask(proxy)
            except _Failed as error:
                return str(error) if error.refuses else ""
            drain = backend.get("drain")
            if isinstance(drain, dict) and drain.get("until_restart"):
                return f"{proxy}: it drains until it is back from its restart"
            verdict = backend.get("health")
            return (
                ""
                if verdict == "healthy"
                else f"{proxy}: {verdict}: {backend.get('reason') or 'not probed yet'}"
            )

        self._until = time.monotonic() + PATIENCE  # a probe has its time for DNS and the answers together
        try:
            proxies = sorted(self._proxies())
        except _Failed:
            return []
        with ThreadPoolExecutor(_MOST) as threads:
            return [text for text in threads.map(ask, proxies) if text]

    def _all(self, threads: ThreadPoolExecutor, ask: Any) -> list[str]:
        """What each proxy answers, asked at once; what went wrong is said."""
        try:
            proxies = sorted(self._proxies())
            self._until = time.monotonic() + PATIENCE
            answers = list(threads.map(ask, proxies))
        except _Failed as error:
            answers = [str(error)]
        for text in sorted(set(answers) - {"", "empty", "draining", "silent", "gone"}):
            self._say(text)
        return answers

    def _of_missing(self) -> list[str]:
        """As `_look`, of the proxies that had sessions when DNS named them last."""
        return [self._seems_gone(proxy) for proxy in self._busy - self._named]

    def _seems_gone(self, proxy: str) -> str:
        since = self._silent.setdefault(proxy, time.monotonic())
        return "gone" if time.monotonic() - since >= GONE else "silent"

    def _proxies(self) -> set[str]:
        """The admin listeners of all proxies, by address. Raises _Failed, also for a DNS that takes long."""
        if self._question is None:
            self._question = Future()
            threading.Thread(target=self._resolve, args=(self._question,), daemon=True).start()
        try:
            self._named = self._question.result(NAMED)
        except (OSError, UnicodeError) as error:  # a TimeoutError too
            if not self._question.done():  # it goes on, for whoever asks next
                raise _Failed(f"{self._host}: DNS has not answered within {NAMED:g} s") from None
            self._question = None
            raise _Failed(f"{self._host}: {getattr(error, 'strerror', None) or error}") from None
        self._question = None
        return self._named

    def _resolve(self, question: Future[set[str]]) -> None:
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            question.set_exception(error)
            return
        hosts = {str(where[0]) for *_, where in found}
        question.set_result({f"http://{f'[{host}]' if ':' in host else host}:{self._port}" for host in hosts})

    def _look(self, proxy: str) -> str:
        """Tell a proxy, if it was not told or does not drain, and ask how far it is."""
        try:
            if proxy not in self._told:
                left = max(0.0, self._deadline - time.monotonic())
                self._ask(proxy, "/drain", {"timeout": left, "until": "restart"})
                self._told.add(proxy)
            backend = self._ask(proxy)
        except _Failed as error:
            if error.has_let_go:  # where backends are discovered, one that goes leaves when it is empty
                self._busy.discard(proxy)
                return "empty"
            if not error.holds_nothing:
                self._silent.pop(proxy, None)
                return str(error)
            self._say(str(error))
            return self._seems_gone(proxy)
        self._silent.pop(proxy, None)
        state = backend.get("drain")
        if isinstance(state, dict) and not state.get("empty"):
            self._busy.add(proxy)
            return "draining"
        self._busy.discard(proxy)
        if isinstance(state, dict) or backend.get("admin_state") == "maintenance":
            return "empty"
        self._told.discard(proxy)  # it was restarted, or somebody has taken the drain back
        return "draining"

    def _ask(self, proxy: str, wish: str = "", body: dict[str, Any] | None = None) -> dict[str, Any]:
        """What a proxy says of this instance, after a wish if there is one. Raises _Failed."""
        url = f"{proxy}/api/backends/{quote(self._name, safe='')}{wish}"
        headers = {"Content-Type": "application/json"}
        if self._token_file is not None:
            try:
                token = Path(self._token_file).read_text(encoding="ascii").strip()
            except (OSError, ValueError) as error:
                raise _Failed(f"--token-file {self._token_file}: {error}") from None
            if not _TOKEN.fullmatch(token):  # what cannot be sent would be said
                raise _Failed(f"--token-file {self._token_file}: must hold one token, and nothing else")
            headers["Authorization"] = f"Bearer {token}"
        data = json.dumps(body).encode() if wish else None
        request = urllib.request.Request(url, data, headers)  # noqa: S310 - it is http
        try:
            left = max(0.01, self._until - time.monotonic())  # 0 would be without end
            with DIRECT.open(request, timeout=left) as answer:
                return dict(json.loads(whole(answer, self._until)))
        except urllib.error.HTTPError as error:
            with error:
                why = f"{url}: {error.code}, {_MEANINGS.get(error.code, error.reason)}"
                gone = error.code == 410
                raise _Failed(
                    why,
                    holds_nothing=gone or error.code == 404,
                    refuses=error.code in _MEANINGS,
                    has_let_go=gone,
                ) from None
        except urllib.error.URLError as error:
            refused = isinstance(error.reason, ConnectionRefusedError)
            raise _Failed(f"{url}: {error.reason}", holds_nothing=refused) from None
        except (OSError, ValueError, TypeError, HTTPException) as error:  # cut off, or no answer of a proxy
            raise _Failed(f"{url}: {error!r}") from None

    def _say(self, text: str) -> None:
        """Say it once, where somebody reads it."""
        if text in self._said:
            return
        self._said.add(text)
        line = f"chainlit-proxy hook: {self._name}: {text}"
        click.echo(line, err=True)
        with contextlib.suppress(OSError), Path(LOG).open("a", encoding="utf-8") as log:
            log.write(line + "\n")
