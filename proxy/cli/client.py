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
_WAIT = 10.0  # seconds for an answer
_SILENCE = 60.0  # seconds without a line of a stream, which says every 15 that it lives


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        """As HTTPRedirectHandler: the redirect is an error."""


class AdminClient:
    """One running proxy; made from `--admin` and `--token`."""

    def __init__(self, admin: str, token: str | None) -> None:
        """Ends the command if one of them cannot be used."""
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

    def get(self, path: str) -> Any:
        """What it says; ends the command with status 1 if it says nothing of use."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Any = None, *, also: tuple[int, ...] = ()) -> Any:
        """Have it do something; the answers with the statuses of `also` are no failures."""
        return self._ask("POST", path, json.dumps({} if body is None else body).encode(), also)

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

    def backends(self, columns: tuple[str, ...]) -> list[dict[str, Any]]:
        """All backends, each with at least these fields."""
        path = "/api/backends"
        found = self.get(path)
        wanted = set(columns)
        if not isinstance(found, list) or not all(isinstance(b, dict) and wanted <= b.keys() for b in found):
            self._nobody(self._url + path, "what it says is no list of backends")
        return found

    def backend(self, name: str, wish: str = "", body: Any = None) -> dict[str, Any]:
        """One backend, after it was told something if there is a wish."""
        path = f"/api/backends/{quote(name, safe='')}"
        found = self.post(f"{path}/{wish}", body) if wish else self.get(path)
        if not isinstance(found, dict) or "admin_state" not in found:
            self._nobody(self._url + path, "what it says is no backend")
        return found

    def backend_if_there(self, name: str) -> dict[str, Any] | None:
        """One backend, None if there is none of that name."""
        path = f"/api/backends/{quote(name, safe='')}"
        found = self._ask("GET", path, None, also=(404,))
        return found if isinstance(found, dict) and "admin_state" in found else None

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
                fail(_reason(error) or f"{url}: answered {error.code}", 1)
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
