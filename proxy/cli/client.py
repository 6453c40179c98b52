"""Asks the admin API of a running proxy, and says what to do where it does not answer."""

import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import quote

from proxy.cli.failing import fail

_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):\d{1,5}")
_BACKEND = ("name", "admin_state", "sessions", "tunnels")  # what every version tells of one
_ELSEWHERE = {404, 405, 501}  # what a web server answers that is no proxy, without saying more
_WAIT = 10.0  # seconds for an answer
_SILENCE = 60.0  # seconds without a line of a stream, which says every 15 that it lives


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        """As HTTPRedirectHandler: the redirect is an error."""


class AdminClient:
    """One running proxy; made from `--admin` and `--token`."""

    def __init__(self, admin: str, token: str | None) -> None:
        """Ends the command if one of them cannot be used."""
        if "@" in admin:  # not repeated: it may hold a password
            fail("--admin or CHAINLIT_PROXY_ADMIN: must hold no password; a token goes into --token")
        self._url = admin.rstrip("/")
        if "://" not in admin and _HOST_AND_PORT.fullmatch(admin):  # as `run --admin` takes it
            self._url = f"http://{admin}"
        if not self._url.startswith(("http://", "https://")):
            fail(
                "--admin or CHAINLIT_PROXY_ADMIN: must be HOST:PORT or a URL such as http://127.0.0.1:9901"
                f" (got {admin!r})"
            )
        token = (token or "").strip()  # from a file it often comes with a line end
        if not all("!" <= character <= "~" for character in token):
            fail("--token: must be visible ASCII characters without spaces or line ends")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def get(self, path: str, *fields: str) -> dict[str, Any]:
        """What it says, with these fields at least; ends the command with status 1 if it lacks one."""
        return self._with(fields, path, self._ask("GET", path, None))

    def get_all(self, path: str, *fields: str) -> list[dict[str, Any]]:
        """A list of what `get` gives."""
        found = self._ask("GET", path, None)
        return [self._with(fields, path, one) for one in (found if isinstance(found, list) else [None])]

    def post(self, path: str, *fields: str, body: Any = None, also: tuple[int, ...] = ()) -> dict[str, Any]:
        """As `get`, after it did something; the answers with the statuses of `also` are no failures."""
        sent = json.dumps({} if body is None else body).encode()
        return self._with(fields, path, self._ask("POST", path, sent, also))

    def follow(self, path: str) -> Iterator[dict[str, Any]]:
        """The events of a stream as they come; ends the command with status 1 when the proxy ends it."""
        with self._open("GET", path, None, _SILENCE) as stream:
            kind = ""
            try:
                for line in stream:
                    name, _, value = line.decode().rstrip("\n").partition(": ")
                    if name == "event":
                        kind = value
                    elif name == "data" and kind == "event":
                        yield json.loads(value)
            except (OSError, ValueError, http.client.HTTPException) as error:
                self._nobody(self._url + path, " ".join(str(error).split()))
        fail(f"{self._url}: the proxy has ended the stream", 1)

    def backend(self, name: str, wish: str = "", body: Any = None) -> dict[str, Any]:
        """One backend, after it was told something if there is a wish."""
        path = f"/api/backends/{quote(name, safe='')}"
        return self.post(f"{path}/{wish}", *_BACKEND, body=body) if wish else self.get(path, *_BACKEND)

    def backend_if_there(self, name: str) -> dict[str, Any] | None:
        """One backend, None if there is none of that name."""
        path = f"/api/backends/{quote(name, safe='')}"
        found = self._ask("GET", path, None, also=(404,))
        return found if isinstance(found, dict) and set(_BACKEND) <= found.keys() else None

    def _with(self, fields: tuple[str, ...], path: str, found: Any) -> dict[str, Any]:
        if not isinstance(found, dict) or not set(fields) <= found.keys():
            self._nobody(self._url + path, "what it says is not of this API")
        return found

    def _ask(self, method: str, path: str, body: bytes | None, also: tuple[int, ...] = ()) -> Any:
        with self._open(method, path, body, _WAIT, also) as response:
            try:
                return json.load(response)
            except json.JSONDecodeError:
                self._nobody(self._url + path, "what it says is no JSON")
            except (OSError, ValueError, http.client.HTTPException) as error:
                self._nobody(self._url + path, " ".join(str(error).split()))

    def _open(
        self, method: str, path: str, body: bytes | None, wait: float, also: tuple[int, ...] = ()
    ) -> Any:
        """The answer, which the caller closes."""
        url = self._url + path
        headers = self._headers | ({} if body is None else {"Content-Type": "application/json"})
        # The token is for this address alone: no proxy of the environment, no redirect on the way.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
        try:
            request = urllib.request.Request(url, body, headers, method=method)  # noqa: S310 - checked above
            return opener.open(request, timeout=wait)
        except urllib.error.HTTPError as error:
            if error.code in also:
                return error
            with error:
                if error.code == 401 and self._headers:
                    fail(f"{self._url}: the token that was given is not the one of this proxy", 1)
                if error.code == 401:
                    fail(f"{self._url}: needs a token: give it with CHAINLIT_PROXY_TOKEN or --token", 1)
                reason = _reason(error)
                if error.code in _ELSEWHERE and reason in {"", http.client.responses[error.code]}:
                    self._nobody(url, f"it answers {error.code}")
                fail(reason or f"{url}: answered {error.code}", 1)
        except (OSError, ValueError, http.client.HTTPException) as error:
            self._nobody(url, " ".join(str(getattr(error, "reason", error)).split()))

    def _nobody(self, url: str, why: str) -> NoReturn:
        fail(
            f"{url}: no proxy answers there ({why}); is it running? Say with --admin or CHAINLIT_PROXY_ADMIN"
            " where its admin listener is, the address behind `admin on` in its log",
            1,
        )


def _reason(error: urllib.error.HTTPError) -> str:
    """What the API says of a refusal, "" if it says nothing."""
    try:
        detail = json.load(error)["detail"]
    except (OSError, ValueError, TypeError, LookupError, http.client.HTTPException):
        return ""
    return detail if isinstance(detail, str) else ""
