"""Responses that the proxy itself gives: one place renders every error, and the page that waits."""

from http import HTTPStatus

from proxy.wire.engineio import UNKNOWN_SESSION

_WAIT_PAGE = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>One moment</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta http-equiv="refresh" content="3">
<style>:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;margin:20vh auto;max-width:30em;
padding:0 1em;text-align:center}</style></head>
<body><h1>One moment</h1><p>The chat is starting or being updated. This page tries again by itself.</p></body>
</html>
"""


def reply(
    status: int,
    body: bytes,
    *,
    content_type: bytes = b"text/plain; charset=utf-8",
    request_id: bytes = b"",
    close: bool = False,
    head_only: bool = False,
    extra: bytes = b"",
) -> bytes:
    """A whole response; to a HEAD request (`head_only`) without its body."""
    phrase = HTTPStatus(status).phrase.encode()
    head = (
        b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nCache-Control: no-store\r\n%b%b%b\r\n"
    ) % (
        status,
        phrase,
        content_type,
        len(body),
        b"X-Request-ID: " + request_id + b"\r\n" if request_id else b"",
        extra,
        b"Connection: close\r\n" if close else b"",
    )
    return head if head_only else head + body


def unknown_session(*, request_id: bytes, head_only: bool = False, extra: bytes = b"") -> bytes:
    """What Engine.IO answers for a sid that it does not know: the client connects anew at once."""
    return reply(
        400,
        UNKNOWN_SESSION,
        content_type=b"application/json",
        request_id=request_id,
        head_only=head_only,
        extra=extra,
    )


def error(
    status: int,
    reason: str,
    *,
    request_id: bytes,
    wants_page: bool,
    close: bool,
    head_only: bool = False,
    retry_after: int = 0,
) -> bytes:
    """An error for a client; `wants_page` says that a browser will show it to a person."""
    after = retry_after or (2 if status == 503 else 0)
    extra = b"Retry-After: %d\r\n" % after if after else b""
    content_type, body = b"text/plain; charset=utf-8", f"{status} {reason}\n".encode()
    if status in (502, 503, 504) and wants_page:
        content_type, body = b"text/html; charset=utf-8", _WAIT_PAGE
    return reply(
        status,
        body,
        content_type=content_type,
        request_id=request_id,
        close=close,
        head_only=head_only,
        extra=extra,
    )
