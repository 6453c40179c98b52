"""Responses that the proxy itself gives: one place makes every error, and the page that waits."""

from http import HTTPStatus
from typing import NamedTuple

from proxy.wire.engineio import UNKNOWN_SESSION

_PAGE = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>One moment</title>
<meta name="viewport" content="width=device-width, initial-scale=1">%b
<style>:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;margin:20vh auto;max-width:30em;
padding:0 1em;text-align:center}</style></head>
<body><h1>One moment</h1><p id="told">%b</p>%b</body>
</html>
"""
_REFRESH = b'<meta http-equiv="refresh" content="%d">'
_WAIT_PAGE = _PAGE % (
    _REFRESH % 3,
    b"No part of the chat answers at the moment. This page tries again every 3 seconds.",
    b"",
)
# The script asks where cookies are refused, too, and does not begin the page anew each time. It goes on where
# an answer is cut off, or where it asked too often (429). A redirect may lead to a login on another site.
_ASKS = b"""
<script>
const ask = async () => {
  try {
    const answer = await fetch(location.href,
      {headers: {"X-Chainlit-Queue": "%b"}, cache: "no-store", redirect: "manual"});
    if (answer.status === 503) {
      const told = await answer.text();
      if (/^[A-Z]/.test(told)) document.getElementById("told").textContent = told;
    } else if (answer.status !== 429) return location.reload();
  } catch {}
  setTimeout(ask, %d);
};
setTimeout(ask, %d);
</script>"""


_TEXT = b"text/plain; charset=utf-8"


class Reply(NamedTuple):
    """A whole response, as a value; whoever speaks to the client renders it."""

    status: int
    body: bytes
    content_type: bytes = _TEXT
    extra: bytes = b""  # further lines

    def http1(self, *, request_id: bytes = b"", close: bool = False, head_only: bool = False) -> bytes:
        """Its bytes in HTTP/1.1; to a HEAD request (`head_only`) without its body."""
        head = (
            b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n"
            b"Cache-Control: no-store\r\n%b%b%b\r\n"
        ) % (
            self.status,
            HTTPStatus(self.status).phrase.encode(),
            self.content_type,
            len(self.body),
            b"X-Request-ID: " + request_id + b"\r\n" if request_id else b"",
            self.extra,
            b"Connection: close\r\n" if close else b"",
        )
        return head if head_only else head + self.body


ADMITTED = Reply(202, b"It is your turn.\n")
"""What a page that waits is told then, so that it loads the chat. No cache keeps a 202."""

OK = Reply(200, b"OK", b"text/html")
"""What Engine.IO answers to a POST (engineio/base_server.py, _ok)."""

CHECKS = (b"GET", b"HEAD", b"OPTIONS")
"""How balancers ask for health; the last is what HAProxy does unless it is told otherwise."""

ALIVE, LEAVING = Reply(200, b"alive\n"), Reply(503, b"leaving\n")
"""What they are told on the clients' port."""

UNKNOWN = Reply(400, UNKNOWN_SESSION, b"application/json")
"""What Engine.IO answers for a sid that it does not know: the client connects anew at once."""


def readable(answer: Reply, origin: bytes) -> Reply:
    """The answer as a script of this origin may read it, in the way of Chainlit's own answers."""
    fields = b"Access-Control-Allow-Origin: %b\r\nAccess-Control-Allow-Credentials: true\r\nVary: Origin\r\n"
    return answer._replace(extra=answer.extra + fields % origin)


def error(status: int, reason: str, *, wants_page: bool = False, retry_after: int = 0) -> Reply:
    """An error for a client; `wants_page` says that a browser will show it to a person."""
    after = retry_after or (2 if status == 503 else 0)
    extra = b"Retry-After: %d\r\n" % after if after else b""
    if status in (502, 503, 504) and wants_page:
        return Reply(status, _WAIT_PAGE, b"text/html; charset=utf-8", extra)
    return Reply(status, f"{status} {reason}\n".encode(), _TEXT, extra)


def queue_page(number: int, of: int, ticket: str, seconds: int, lines: bytes, *, as_text: bool) -> Reply:
    """What is told to who waits for a place, as this `ticket`, and asks again after so many seconds.

    `number` is its place among as many as `of`, 0 for none; `lines` are further ones of the head. A page that
    is open asks for the text alone.
    """
    if number:
        told = f"You are number {number} of {of} in the queue. The chat opens here when it is your turn."
    else:
        told = f"Many people want to come in, and {of} are in the queue. This page tries again by itself."
    extra = b"Retry-After: %d\r\n%b" % (seconds, lines)
    if as_text:
        return Reply(503, told.encode(), _TEXT, extra)
    pause = seconds * 1000
    script = _ASKS % (ticket.encode(), pause, pause)
    without = b"<noscript>%b</noscript>" % (_REFRESH % seconds)
    return Reply(503, _PAGE % (without, told.encode(), script), b"text/html; charset=utf-8", extra)
