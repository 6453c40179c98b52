"""Finding the backend that holds a session by asking all of them (docs/affinity.md).

`GET /project/file/x?session_id=ID` has no side effect in Chainlit: the instance that holds the session
answers 404 (no such file), the others 401 (chainlit/server.py, get_file). All are asked at once, the first
404 wins; a backend that does not answer in time has said nothing.
"""

import asyncio

from proxy.affinity.backend import Backend
from proxy.dataplane.fetch import fetch
from proxy.dataplane.pool import Pool
from proxy.errors import ProxyError

_HOLDS_IT = 404


async def locate(pools: list[Pool], head: bytes, timeout: float) -> Backend | None:  # noqa: ASYNC109
    """The backend that holds the session which the request `head` names, or None.

    Cancel-safe: questions that are under way are cancelled with it.
    """
    questions = {asyncio.ensure_future(_ask(pool, head, timeout)): pool.backend for pool in pools}
    waiting = set(questions)
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for question in done:
                if question.result():
                    return questions[question]
        return None
    finally:
        for question in waiting:
            question.cancel()


async def _ask(pool: Pool, head: bytes, timeout: float) -> bool:  # noqa: ASYNC109
    try:
        response, _ = await fetch(pool, b"GET", head, timeout)
    except ProxyError:
        return False
    return response.status == _HOLDS_IT
