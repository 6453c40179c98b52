"""An instance proves to a probe that it is one of ours: by a secret that only they and the proxies have.

A name may lead to a stranger's server, and anybody can answer `/health`. The probe brings a challenge, a
number that was never used before; each answer to it carries its keyed hash, which tells nothing of the
secret. Whoever can pass the challenge on to one of our instances can pass the proof back: it tells who
answers, and does not protect what is sent over a network that others read.
"""

import hmac
import importlib
import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

CHALLENGE, PROOF = b"x-chainlit-proxy-challenge", b"x-chainlit-proxy-proof"  # as in proxy/controlplane/probes
_CONTEXT = b"chainlit-proxy health\n"  # no proof is of use for anything else
_LONGEST = 128  # bytes of a challenge

log = logging.getLogger("chainlit_proxy.sessions")
_MARK = "_chainlit_proxy_proof"  # on Chainlit's application


def proof(secrets: Sequence[str], challenge: bytes) -> bytes:
    """The hash by each of the secrets: while they are changed the proxies may know another one."""
    return b",".join(
        hmac.new(secret.encode(), _CONTEXT + challenge, "sha256").hexdigest().encode() for secret in secrets
    )


class Proving:
    """ASGI middleware: answers to a challenge carry the proof."""

    def __init__(self, app: Callable[..., Awaitable[None]], secrets: Sequence[str]) -> None:
        self._app, self._secrets = app, secrets

    def __repr__(self) -> str:
        return f"<Proving by {len(self._secrets)} secrets>"

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Any, send: Callable[[Any], Awaitable[None]]
    ) -> None:
        """As ASGI."""
        fields = scope.get("headers", ()) if scope["type"] == "http" else ()
        challenge = next((value for name, value in fields if name == CHALLENGE), b"")
        if not 0 < len(challenge) <= _LONGEST:
            await self._app(scope, receive, send)
            return

        async def proved(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answer = (PROOF, proof(self._secrets, challenge))
                message = {**message, "headers": [*message.get("headers", ()), answer]}
            await send(message)

        await self._app(scope, receive, proved)


def prove(secrets: Sequence[str]) -> None:
    """Has Chainlit's application prove itself from its start on; once in a process. What fails is logged."""
    if not secrets:
        return
    try:
        app: Any = importlib.import_module("chainlit.server").app
        if not hasattr(app.state, _MARK):
            app.add_middleware(Proving, secrets=tuple(secrets))
            setattr(app.state, _MARK, True)
    except Exception:  # the app runs all the same, and its proxies say what is missing
        log.exception("this Chainlit cannot prove itself to probes")
