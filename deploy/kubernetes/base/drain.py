"""Tells every proxy that this pod goes or is back: `drain` as preStop, `ready` as postStart.

Each address of the proxies' headless service is told, also one that joins meanwhile: proxies share nothing. A
drain is over when all of them say that the pod is empty, or when its time is up; then the pod is stopped,
whatever is left. Who cannot be told is asked again until then, unless nobody has listened there for a while.
What fails is said in the log of the pod, since a hook's own output is shown nowhere, and a drain that could
not be told ends with status 1, of which Kubernetes makes an event (FailedPreStopHook). Needs only Python.
"""

import contextlib
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LOOK = 1.0  # seconds between two questions
LATE = 5.0  # seconds that a proxy may take longer than it was given
PATIENCE = 5.0  # seconds for an answer
GONE = 15.0  # seconds after which a proxy that refuses connections has ended, though DNS still names it
BACK = 20.0  # seconds in which `ready` is said again: a new pod's first packets may be dropped
LOG = "/proc/1/fd/2"  # standard error of the container
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # what `http_proxy` names is for others
MEANINGS = {
    401: "the token is wrong (ADMIN_TOKEN of this pod is not the admin.token of the proxy)",
    404: "it does not know this pod: is it among its backends?",
}


class Failed(Exception):  # noqa: N818 - what happened
    """A proxy could not be told: `refused` if nobody listens there, `unknown` if it has no such backend."""

    def __init__(self, why: str, *, refused: bool = False, unknown: bool = False) -> None:
        super().__init__(why)
        self.refused = refused
        self.unknown = unknown


def say(text: str, said: set[str]) -> None:
    """Say it once."""
    if text in said:
        return
    said.add(text)
    line = f"drain.py: {text}"
    print(line, file=sys.stderr, flush=True)
    with contextlib.suppress(OSError), Path(LOG).open("a", encoding="utf-8") as log:
        log.write(line + "\n")


def proxies() -> set[str]:
    """The admin listeners of all proxies, by address. Raises Failed."""
    host, _, port = os.environ["PROXY_ADMIN"].rpartition(":")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise Failed(f"{host}: {error.strerror or error}") from None
    hosts = {str(where[0]) for *_, where in found}
    return {f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}" for host in hosts}


def ask(proxy: str, action: str = "", body: dict[str, float] | None = None) -> dict[str, object]:
    """What a proxy says of this pod, after an action if there is one. Raises Failed."""
    headers = {"Authorization": f"Bearer {os.environ['ADMIN_TOKEN']}", "Content-Type": "application/json"}
    url = f"{proxy}/api/backends/{os.environ['POD_NAME']}{action}"
    data = json.dumps(body or {}).encode() if action else None
    try:
        with DIRECT.open(urllib.request.Request(url, data, headers), timeout=PATIENCE) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        with error:
            why = f"{url}: {error.code}, {MEANINGS.get(error.code, error.reason)}"
            raise Failed(why, unknown=error.code == 404) from None
    except urllib.error.URLError as error:
        refused = isinstance(error.reason, ConnectionRefusedError)
        raise Failed(f"{url}: {error.reason}", refused=refused) from None
    except (OSError, ValueError) as error:
        raise Failed(f"{url}: {error}") from None


class Drain:
    """One pod's, at all proxies."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self.told: set[str] = set()
        self.refusing: dict[str, float] = {}  # since when
        self.said: set[str] = set()

    def run(self) -> bool:
        """Have all proxies send this pod's sessions away, and wait until they are gone.

        Return whether all were told.
        """
        with ThreadPoolExecutor() as threads:
            while True:
                try:
                    here = sorted(proxies())
                except Failed as error:
                    trouble = {str(error)}
                else:
                    answers = list(threads.map(self.look, here))
                    if all(answer == "empty" for answer in answers):
                        return True
                    trouble = set(answers) - {"empty", "draining"}
                for text in sorted(trouble):
                    say(text, self.said)
                if time.monotonic() > self.deadline + LATE:
                    say("the time is up" + (", not all proxies were told" if trouble else ""), self.said)
                    return not trouble
                time.sleep(LOOK)

    def look(self, proxy: str) -> str:
        """Tell a proxy if it was not told, and ask how far it is: "empty", "draining" or what failed."""
        try:
            if proxy not in self.told:
                ask(proxy, "/drain", {"timeout": max(0.0, self.deadline - time.monotonic())})
                self.told.add(proxy)
            state = ask(proxy).get("drain")
        except Failed as error:
            if error.unknown:  # no session of this pod is there
                say(str(error), self.said)
                return "empty"
            now = time.monotonic()
            since = self.refusing.setdefault(proxy, now) if error.refused else now
            return "empty" if now - since >= GONE else str(error)
        self.refusing.pop(proxy, None)
        return "draining" if isinstance(state, dict) and not state["empty"] else "empty"


def ready(seconds: float) -> None:
    """Tell all proxies that this pod takes sessions again: one that stays drained would get none."""
    said: set[str] = set()
    told: set[str] = set()
    deadline = time.monotonic() + seconds
    while True:
        try:
            left = proxies() - told
        except Failed as error:  # no proxy is there: none has drained this pod
            say(str(error), said)
            return
        for proxy in left:
            try:
                ask(proxy, "/ready")
            except Failed as error:
                say(str(error), said)
                if not (error.refused or error.unknown):
                    continue
            told.add(proxy)
        if left <= told or time.monotonic() > deadline:
            return
        time.sleep(LOOK)


def main() -> int:
    """The status: a failed postStart would end the container, so `ready` never fails."""
    if sys.argv[1] == "drain":
        return 0 if Drain(float(os.environ["DRAIN_SECONDS"])).run() else 1
    ready(BACK)
    return 0


if __name__ == "__main__":
    sys.exit(main())
