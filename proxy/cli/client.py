"""Asks the admin API of a running proxy, and says what to do where it does not answer."""

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import quote

from proxy.cli.failing import BAD_USE

_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):\d{1,5}")
_BACKEND = ("name", "admin_state", "sessions", "tunnels")  # what every version tells of one
_ELSEWHERE = {*range(300, 400), 404, 405, 501}  # what a web server answers that is no proxy, with no reason
_FOREIGN = "its answer is not from this API"
_AWAY = {502, 503, 504}  # what is answered while a proxy starts, ends or cannot be reached
_WAIT = 10.0  # seconds for an answer
_LARGEST = 64 << 20  # bytes of an answer
_SILENCE = 60.0  # seconds without a line of a stream, which says every 15 that it lives


class AskError(Exception):
    """The proxy was not asked, did not answer, or refused; the text is for the user."""

    def __init__(self, text: str, *, code: int = 1, status: int = 0, lost: bool = False) -> None:
        """`code` is for the shell; `status` is the answer's, 0 without; `lost`: it may answer later."""
        super().__init__(text)
        self.code, self.status, self.lost = code, status, lost


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        """As HTTPRedirectHandler: the redirect is an error."""


# The token is for one address alone: no proxy of the environment, no redirect on the way.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)


class AdminClient:
    """One running proxy; made from `--admin` and `--token`. What it is asked raises AskError."""

    def __init__(self, admin: str, token: str | None, wait: float = _WAIT) -> None:
        """`wait` is how many seconds an answer may take. Raises AskError for what cannot be used."""
        self._wait = wait
        if "@" in admin:  # not repeated: it may hold a password
            raise AskError(
                "--admin or CHAINLIT_PROXY_ADMIN: must hold no password; a token goes into --token",
                code=BAD_USE,
            )
        self._url = admin.rstrip("/")
        if "://" not in admin and _HOST_AND_PORT.fullmatch(admin):  # as `run --admin` takes it
            self._url = f"http://{admin}"
        if not self._url.startswith(("http://", "https://")):
            raise AskError(
                "--admin or CHAINLIT_PROXY_ADMIN: must be HOST:PORT or a URL such as http://127.0.0.1:9901"
                f" (got {admin!r})",
                code=BAD_USE,
            )
        token = (token or "").strip()  # from a file it often comes with a line end
        if not all("!" <= character <= "~" for character in token):
            raise AskError(
                "--token: must be visible ASCII characters without spaces or line ends", code=BAD_USE
            )
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def get(self, path: str, *fields: str) -> dict[str, Any]:
        """What it says, which has these fields at least."""
        return self._with(fields, path, self._ask("GET", path, None))

    def get_all(self, path: str, *fields: str) -> list[dict[str, Any]]:
        """A list of what `get` gives."""
        found = self._ask("GET", path, None)
        return [self._with(fields, path, one) for one in (found if isinstance(found, list) else [None])]

    def post(self, path: str, *fields: str, body: Any = None, also: tuple[int, ...] = ()) -> dict[str, Any]:
        """As `get`, after it did something; the answers with the statuses of `also` are no failures."""
        sent = json.dumps({} if body is None else body).encode()
        return self._with(fields, path, self._ask("POST", path, sent, also))

    def follow(self, path: str, seen: int) -> Iterator[dict[str, Any] | None]:
        """The events of a stream that are newer than number `seen`, as they come; None: it has opened.

        Raises AskError, a lost one, when the stream ends.
        """
        with self._open("GET", path, None, _SILENCE, more={"Last-Event-ID": str(seen)}) as stream:
            if stream.headers.get_content_type() != "text/event-stream":
                self._nobody(self._url + path, _FOREIGN)
            yield None
            kind = ""
            try:
                for line in stream:
                    name, _, value = line.decode().rstrip("\n").partition(": ")
                    if name == "event":
                        kind = value
                    elif name == "data" and kind == "event":
                        yield json.loads(value)
            except (OSError, ValueError, http.client.HTTPException) as error:
                self._nobody(self._url + path, _text(error))
        raise AskError(f"{self._url}: the proxy has ended the stream", lost=True)

    def backend(self, name: str, wish: str = "", body: Any = None) -> dict[str, Any]:
        """One backend, after it was told something if there is a wish."""
        path = f"/api/backends/{quote(name, safe='')}"
        return self.post(f"{path}/{wish}", *_BACKEND, body=body) if wish else self.get(path, *_BACKEND)

    def backend_if_there(self, name: str) -> dict[str, Any] | None:
        """One backend, None if there is none of that name."""
        path = f"/api/backends/{quote(name, safe='')}"
        found = self._ask("GET", path, None, also=(404, 410))
        return found if isinstance(found, dict) and set(_BACKEND) <= found.keys() else None

    def _with(self, fields: tuple[str, ...], path: str, found: Any) -> dict[str, Any]:
        if not isinstance(found, dict) or not set(fields) <= found.keys():
            self._nobody(self._url + path, _FOREIGN)
        return found

    def _ask(self, method: str, path: str, body: bytes | None, also: tuple[int, ...] = ()) -> Any:
        with self._open(method, path, body, self._wait, also) as response:
            try:
                return json.loads(whole(response, time.monotonic() + self._wait))
            except json.JSONDecodeError:
                self._nobody(self._url + path, "its answer is not JSON")
            except (OSError, ValueError, http.client.HTTPException) as error:
                self._nobody(self._url + path, _text(error))

    def _open(
        self,
        method: str,
        path: str,
        body: bytes | None,
        wait: float,
        also: tuple[int, ...] = (),
        more: dict[str, str] | None = None,
    ) -> Any:
        """The answer, which the caller closes."""
        url = self._url + path
        headers = self._headers | ({} if body is None else {"Content-Type": "application/json"})
        headers |= more or {}
        try:
            request = urllib.request.Request(url, body, headers, method=method)  # noqa: S310 - checked above
            return DIRECT.open(request, timeout=wait)
        except urllib.error.HTTPError as error:
            if error.code in also:
                return error
            with error:
                self._refused(url, error)
        except (OSError, ValueError, http.client.HTTPException) as error:
            self._nobody(url, _text(error))

    def _refused(self, url: str, error: urllib.error.HTTPError) -> NoReturn:
        status = error.code
        if status == 401 and self._headers:
            raise AskError(f"{self._url}: this proxy does not accept the token that was given")
        if status == 401:
            raise AskError(f"{self._url}: needs a token: give it with CHAINLIT_PROXY_TOKEN or --token")
        reason = _reason(error, time.monotonic() + self._wait)
        if status in _ELSEWHERE and reason in {"", http.client.responses[status]}:
            self._nobody(url, f"it answers {status}")
        raise AskError(reason or f"{url}: answered {status}", status=status, lost=status in _AWAY)

    def _nobody(self, url: str, why: str) -> NoReturn:
        raise AskError(
            f"{url}: no proxy answers there ({why}); is it running? Its log has the address of its admin"
            " listener, after `admin on`: set it with --admin or CHAINLIT_PROXY_ADMIN",
            lost=True,
        )


def whole(response: Any, until: float) -> bytes:
    """All of an answer. Raises OSError where it stalls, and ValueError where it does not end in time."""
    read = bytearray()
    while piece := response.read1():
        read += piece
        if len(read) > _LARGEST or time.monotonic() > until:
            raise ValueError("its answer does not end")
    return bytes(read)


def _text(error: Exception) -> str:
    """Why there is no answer, without a number of the system."""
    reason = getattr(error, "reason", error)
    text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return " ".join(text.split())


def _reason(error: urllib.error.HTTPError, until: float) -> str:
    """What the API says of a refusal, "" if it says nothing."""
    try:
        detail = json.loads(whole(error, until))["detail"]
    except (OSError, ValueError, TypeError, LookupError, http.client.HTTPException):
        return ""
    return detail if isinstance(detail, str) else ""
