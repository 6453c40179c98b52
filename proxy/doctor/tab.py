"""One page load: a session of Chainlit, its connection, and the requests that only its instance can answer.

What is asked has no effect on the app: no chat is started, nothing is said to it, and the session is cleared
in the end, with the file that was uploaded.
"""

import asyncio
import contextlib
import io
import json
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import FormData

from proxy.doctor.browser import Answer, Browser
from proxy.doctor.engine import Engine, RefusedError, Transport

NOBODY = "chainlit-proxy-doctor"  # the name of a file and of an action that no app has
_FAREWELL = 2.0  # seconds


@dataclass(frozen=True, slots=True)
class Reached:
    """Whether a request met the instance that holds its session; `id` is that of an upload it took."""

    there: bool
    answer: Answer
    id: str = ""


class Tab:
    """`async with Tab(browser, transport)`; its session has another id each time."""

    def __init__(self, browser: Browser, transport: Transport) -> None:
        self.browser = browser
        self.session = str(uuid.uuid4())
        self.transport = transport
        self.engine = Engine(browser, transport)

    def __repr__(self) -> str:
        return f"<Tab {self.session[:8]} {self.engine!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Clears the session, if it still can be."""
        with contextlib.suppress(RefusedError, TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await self.engine.send('42["clear_session"]', "41")
        await self.engine.drop()

    async def load(self) -> None:
        """As the page does before and while it connects; raises RefusedError."""
        await self.browser.ask("POST", "/set-session-cookie", json={"session_id": self.session})
        await self._connect()

    async def come_back(self) -> None:
        """Loses its connection and connects anew, as the page does by itself; raises RefusedError."""
        await self.engine.drop()
        self.engine = Engine(self.browser, self.transport)
        await self._connect()

    async def _connect(self) -> None:
        env = dict.fromkeys(self.browser.site.user_env, "doctor")
        await self.engine.connect(
            {
                "clientType": "webapp",
                "sessionId": self.session,
                "threadId": "",
                "userEnv": json.dumps(env),
                "chatProfile": "",
            }
        )

    async def upload(self, content: bytes = b"chainlit-proxy doctor\n", told: str = "") -> Reached:
        """Uploads a file. An app that takes no such file says so in its own words: it was reached."""
        form = FormData()
        form.add_field("file", io.BytesIO(content), filename="doctor.txt", content_type="text/plain")
        self.browser.site.sent_bytes += len(content)
        answer = await self.browser.ask(
            "POST",
            "/project/file",
            told=told,
            params={"session_id": self.session},
            data=form,
            patience=120,
        )
        said = body_of(answer)
        if answer.status == 200 and isinstance(said.get("id"), str):
            return Reached(there=True, answer=answer, id=said["id"])
        refused = answer.status == 400 and str(said.get("detail", "")).startswith("File ")
        return Reached(there=refused, answer=answer)

    async def element(self, file: str = NOBODY) -> Reached:
        """Fetches an uploaded file, or one that is not there, which its instance alone can tell."""
        told = f"/project/file/{'...' if file != NOBODY else file}"
        answer = await self.browser.ask(
            "GET", f"/project/file/{file}", told=told, params={"session_id": self.session}
        )
        if file != NOBODY:
            return Reached(there=answer.status == 200, answer=answer)
        missing = answer.status == 404 and body_of(answer).get("detail") == "File not found"
        return Reached(there=missing, answer=answer)

    async def action(self) -> Reached:
        """Presses a button that no app has."""
        body = {"sessionId": self.session, "action": {"name": NOBODY, "payload": {}}}
        answer = await self.browser.ask("POST", "/project/action", json=body)
        detail = str(body_of(answer).get("detail", ""))
        there = answer.status == 404 and detail.startswith("No callback")
        return Reached(there=there, answer=answer)

    @property
    def requests(self) -> dict[str, Callable[[], Coroutine[Any, Any, Reached]]]:
        """What only the instance of the session can answer, by the finding that it is for."""
        return {"upload": self.upload, "element": self.element, "action": self.action}


def body_of(answer: Answer) -> dict[str, Any]:
    """The JSON object of an answer; empty if it is none."""
    try:
        found = json.loads(answer.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
