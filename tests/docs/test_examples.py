"""The output that the pages show is what the program prints."""

import asyncio
import io
import json
import re

import pytest

from proxy import net
from proxy.config import loads
from proxy.controlplane.admin_actions import BackendStatus
from proxy.logs import AccessLog
from proxy.parts import Parts
from tests.docs.pages import ROOT, found

CONSOLE = re.compile(r"\d\d:\d\d:\d\d access  [A-Z]+ \S+ \d{3} \S+ \S+ \d+\.\d{3}s \d+/\d+B.*")
# Lists are files of backends, which `test_yaml.py` reads.
SAMPLES = [sample for piece in found("json") if isinstance(sample := json.loads(piece.text), dict)]


def access_line(form: str) -> str:
    """The line that one request leaves in the access log; there is no backend, so it is refused."""
    config = loads(
        f"listen: 127.0.0.1:0\nadmin: {{listen: 127.0.0.1:0}}\nlog: {{format: {form}}}\naffinity: {{hold: 0}}"
    )
    parts = Parts(config)
    written = io.StringIO()
    access = parts.plane.site.access = AccessLog(config.log, written)

    async def scenario() -> None:
        sock = net.bind(config.listen[0])
        serving = asyncio.create_task(parts.plane.run([sock]))
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: chat\r\nConnection: close\r\n\r\n")
        assert b"503" in await reader.readline()
        await reader.read()
        writer.close()
        await writer.wait_closed()
        serving.cancel()
        await asyncio.wait([serving])
        access.flush()

    asyncio.run(scenario())
    return written.getvalue()


def test_the_json_access_line_has_the_keys_that_are_shown() -> None:
    """The sample has the keys of a real line, in their order."""
    (sample,) = [sample for sample in SAMPLES if sample.get("logger") == "access"]
    real = json.loads(access_line("json"))
    assert list(real) == list(sample)
    assert real["status"] == 503


def test_the_console_access_line_has_the_form_that_is_shown() -> None:
    """The samples and a real line have one form."""
    shown = [line for piece in found("text") for line in piece.text.splitlines() if " access " in line]
    assert shown
    for line in [*shown, access_line("console").rstrip("\n")]:
        assert CONSOLE.fullmatch(line), line


def test_a_backend_is_shown_as_the_api_answers_it() -> None:
    """The sample of `/api/backends` is valid and complete."""
    (sample,) = [sample for sample in SAMPLES if "admin_state" in sample]
    assert list(sample) == list(BackendStatus.model_fields)
    BackendStatus.model_validate(sample)


@pytest.mark.parametrize("page", ["README.md", "docs/configuration.md"])
def test_the_shortest_file_is_shown(page: str) -> None:
    """Who looks for a first file finds one of at most ten lines."""
    blocks = [piece for piece in found("yaml") if piece.page == ROOT / page]
    assert min(len(block.text.splitlines()) for block in blocks) <= 10
