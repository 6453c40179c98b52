"""What a session id is. Chainlit makes, and removes, a folder of that name, so nothing else is one."""

import logging
import re
from typing import Any

log = logging.getLogger("chainlit_proxy.sessions")

_SESSION = re.compile("[A-Za-z0-9_-]{8,64}")


def is_session_id(text: object) -> bool:
    """Whether it is a session id, which a page makes; the same as in the proxy's `wire.engineio`."""
    return isinstance(text, str) and _SESSION.fullmatch(text) is not None


def named_session(auth: Any) -> str | None:
    """The session that a CONNECT names, None if it names none. Raises ConnectionRefusedError."""
    if not isinstance(auth, dict) or "sessionId" not in auth:
        return None
    session = auth["sessionId"]
    if not is_session_id(session):
        log.debug("a client was refused: what it names is no session id")
        raise ConnectionRefusedError("malformed session id")
    return str(session)
