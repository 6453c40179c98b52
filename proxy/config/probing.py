"""What a probe says and takes for good: a Host, and statuses."""

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from proxy.config.address import host_name
from proxy.config.problems import got
from proxy.config.values import Allowed

_STATUSES = re.compile(r"(?P<low>[1-5][0-9]{2})(?:-(?P<high>[1-5][0-9]{2}))?|(?P<kind>[1-5])xx")
_STATUS_FORMS = "a status such as 204, a range such as 200-399 or a class such as 2xx"
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]*\]|[^:\[\]]*)(?::[0-9]{1,5})?")  # RFC 9110 section 7.2


def statuses(texts: Iterable[str]) -> frozenset[int]:
    """All that `health.status` names."""
    found: set[int] = set()
    for text in texts:
        found.update(_range(text))
    return frozenset(found)


def _range(text: str) -> range:
    match = _STATUSES.fullmatch(text)
    if match is None:
        raise ValueError(f"must be {_STATUS_FORMS}{got(text)}")
    if match["kind"]:
        return range(int(match["kind"]) * 100, int(match["kind"]) * 100 + 100)
    low, high = int(match["low"]), int(match["high"] or match["low"])
    if low > high:
        raise ValueError(f"must begin with the lower status: {high}-{low}{got(text)}")
    return range(low, high + 1)


def _status(value: object) -> object:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise ValueError(f"must be {_STATUS_FORMS}{got(value)}")  # noqa: TRY004 - pydantic collects ValueError
    _range(text)
    return text


def _as_list(value: object) -> object:
    return (value,) if isinstance(value, str | int) else value


def _host(value: str | None) -> str | None:
    if value is None:
        return None
    match = _HOST.fullmatch(value)
    if match is None:
        raise ValueError(f"must be a host name or an IP address, with or without a port{got(value)}")
    host_name(match["host"].strip("[]"))
    return value


Statuses = Annotated[
    tuple[Annotated[str, BeforeValidator(_status)], ...],
    BeforeValidator(_as_list),
    Field(min_length=1),
    Allowed(f"{_STATUS_FORMS}, or a list of them"),
]
ProbeHost = Annotated[
    str | None,
    AfterValidator(_host),
    Allowed("a host name or an IP address, with or without a port"),
]
