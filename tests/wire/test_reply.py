"""The proxy's own responses: valid for every reader, and right for whom they are meant."""

import json

import h11
import pytest

from proxy.wire import reply


def read(data: bytes, method: bytes = b"GET") -> tuple[int, dict[bytes, bytes], bytes]:
    """A response as h11 reads it; it must be whole, and all of the data."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    response = connection.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert connection.trailing_data[0] == b""
    assert response.reason
    return response.status_code, {bytes(name): bytes(value) for name, value in response.headers}, body


@pytest.mark.parametrize("status", [400, 408, 413, 429, 431, 500, 501, 502, 503, 504])
def test_errors_are_whole_responses(status: int) -> None:
    """Each error has its phrase, its length, its id, and is kept by no cache (RFC 9111 section 5.2.2.5)."""
    data = reply.error(status, "why").http1(request_id=b"id")
    code, fields, body = read(data)
    assert (code, body) == (status, b"%d why\n" % status)
    assert (fields[b"x-request-id"], fields[b"cache-control"]) == (b"id", b"no-store")
    assert fields[b"content-type"] == b"text/plain; charset=utf-8"
    assert b"connection" not in fields


def test_closing_errors_say_so() -> None:
    """RFC 9112 section 9.6: who is going to close says close."""
    data = reply.error(400, "why").http1(close=True)
    _, fields, _ = read(data)
    assert fields[b"connection"] == b"close"
    assert b"x-request-id" not in fields


def test_the_answer_to_head_has_no_body() -> None:
    """RFC 9110 section 9.3.2: the head that GET would get, its length too, and nothing behind it."""
    error = reply.error(503, "why", wants_page=True)
    whole, head = error.http1(request_id=b"id"), error.http1(request_id=b"id", head_only=True)
    assert whole.startswith(head)
    assert head.endswith(b"\r\n\r\n")
    code, fields, body = read(head, b"HEAD")
    assert (code, body) == (503, b"")
    assert int(fields[b"content-length"]) == len(whole) - len(head)


# status, whether a person will see it, whether it is the page, Retry-After
PAGES = [
    (502, True, True, None),
    (503, True, True, b"2"),
    (504, True, True, None),
    (503, False, False, b"2"),
    (502, False, False, None),
    (400, True, False, None),
    (500, True, False, None),
]


@pytest.mark.parametrize(("status", "wants_page", "is_page", "retry"), PAGES)
def test_people_get_a_page_that_tries_again(
    status: int, wants_page: bool, is_page: bool, retry: bytes | None
) -> None:
    """A passing fault shows a page that reloads itself; a program gets text, and when to come again."""
    _, fields, body = read(reply.error(status, "why", wants_page=wants_page).http1())
    assert fields[b"content-type"].startswith(b"text/html" if is_page else b"text/plain")
    assert (b'http-equiv="refresh"' in body) == is_page
    assert fields.get(b"retry-after") == retry


@pytest.mark.parametrize("as_text", [False, True])
def test_who_waits_is_told_its_place(as_text: bool) -> None:
    """By a page that asks again with its ticket, and by a text for that; no number where there is none."""
    page = reply.queue_page(3, 12, "ticket", 3, b"Set-Cookie: a=b\r\n", as_text=as_text)
    code, fields, body = read(page.http1())
    assert (code, fields[b"retry-after"], fields[b"cache-control"]) == (503, b"3", b"no-store")
    assert fields[b"set-cookie"] == b"a=b"
    assert b"You are number 3 of 12 in the queue." in body
    assert (b'"X-Chainlit-Queue": "ticket"' in body, b"<html" in body) == (not as_text, not as_text)
    assert b"number" not in reply.queue_page(0, 12, "ticket", 3, b"", as_text=as_text).body


def test_an_unknown_sid_is_answered_as_engineio_does() -> None:
    """Engine.IO protocol 4: status 400 and code 1, on which the client connects anew at once."""
    code, fields, body = read(reply.UNKNOWN.http1(request_id=b"id"))
    assert (code, fields[b"content-type"]) == (400, b"application/json")
    assert json.loads(body) == {"code": 1, "message": "Session ID unknown"}
    assert b"connection" not in fields
