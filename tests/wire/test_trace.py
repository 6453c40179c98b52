"""W3C Trace Context: which trace a request is part of."""

import pytest

from proxy.wire.fields import Fields
from proxy.wire.forwarding import trace_id


@pytest.mark.parametrize(
    ("value", "trace"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "0af7651916cd43dd8448eb211c80319c"),
        ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", "0af7651916cd43dd8448eb211c80319c"),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", ""),
        ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", ""),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", ""),
        ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", ""),
        ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", ""),
        ("anything", ""),
    ],
)
def test_the_trace_of_a_request(value: str, trace: str) -> None:
    """Only a valid traceparent names one; two of them name none, nor does none at all."""
    line = f"traceparent: {value}\r\n".encode()
    assert trace_id(Fields(line)) == trace
    assert trace_id(Fields(line + line)) == ""
    assert trace_id(Fields(b"")) == ""
