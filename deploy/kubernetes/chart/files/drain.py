"""Tells every proxy that this pod goes or is back: `drain` as preStop, `ready` as postStart.

Each address of the proxies' headless service is told, also one that joins meanwhile: proxies share nothing. A
drain returns when all of them say that the pod is empty, or when its time is over; then the pod is stopped,
whatever is left. A proxy that does not answer is not waited for. Needs nothing but Python.
"""

import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request

LOOK = 1.0  # seconds between two questions
LATE = 5.0  # seconds that a proxy may take longer than it was given
PATIENCE = 5.0  # seconds for an answer
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # what `http_proxy` names is for others


def proxies() -> set[str]:
    """The admin listeners of all proxies, by address."""
    host, _, port = os.environ["PROXY_ADMIN"].rpartition(":")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError:
        return set()
    hosts = {str(where[0]) for *_, where in found}
    return {f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}" for host in hosts}


def ask(proxy: str, action: str = "", body: dict[str, float] | None = None) -> dict[str, object]:
    """What a proxy says of this pod, after an action if there is one; nothing if it does not answer."""
    headers = {"Authorization": f"Bearer {os.environ['ADMIN_TOKEN']}", "Content-Type": "application/json"}
    url = f"{proxy}/api/backends/{os.environ['POD_NAME']}{action}"
    data = json.dumps(body or {}).encode() if action else None
    try:
        with DIRECT.open(urllib.request.Request(url, data, headers), timeout=PATIENCE) as answer:
            return dict(json.load(answer))
    except (OSError, ValueError) as error:
        print(f"{url}: {error}", file=sys.stderr, flush=True)
        return {}


def drain(seconds: float) -> None:
    """Have all proxies send this pod's sessions away, and wait until they are gone."""
    deadline = time.monotonic() + seconds
    told: dict[str, bool] = {}  # whether it is empty there, or does not say
    while (left := deadline - time.monotonic()) > -LATE:
        for proxy in proxies() - told.keys():
            told[proxy] = not ask(proxy, "/drain", {"timeout": max(0.0, left)})
        for proxy in [proxy for proxy, done in told.items() if not done]:
            state = ask(proxy).get("drain")
            told[proxy] = not isinstance(state, dict) or bool(state["empty"])
        if all(told.values()):
            return
        time.sleep(LOOK)


def main() -> None:
    """Never fails: what cannot be told is not a reason to keep a pod."""
    if sys.argv[1] == "drain":
        drain(float(os.environ["DRAIN_SECONDS"]))
    else:
        for proxy in proxies():
            ask(proxy, "/ready")


if __name__ == "__main__":
    main()
