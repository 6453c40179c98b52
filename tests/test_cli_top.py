"""What `top` shows: rates, and as much of them as the terminal has room for."""

from typing import Any

import pytest

from proxy.cli.top import picture

WIDE, HIGH = 160, 40


def backend(name: str, **more: Any) -> dict[str, Any]:
    """One backend of an overview."""
    counts = {
        "sessions": 0,
        "turns": 0,
        "requests": 0,
        "frames": 0,
        "cpu_seconds": None,
        "probes": 0,
        "probe_seconds": 0.0,
    }
    return {"name": name, "health": "healthy", "admin_state": "ready", **counts, **more}


def overview(at: float, *backends: dict[str, Any]) -> dict[str, Any]:
    """An overview of a time."""
    return {"version": "1.2.3", "build": "interpreted", "at": at, "backends": list(backends)}


BEFORE = overview(10.0, backend("a", requests=100, cpu_seconds=2.0, probes=10, probe_seconds=1.0))
NOW = overview(
    12.0,
    backend(
        "a", sessions=10, turns=3, requests=150, frames=9, cpu_seconds=2.5, probes=12, probe_seconds=1.01
    ),
    backend("new", sessions=5, requests=7),
)


def test_rates() -> None:
    """Rates are of the time between two overviews; a backend that is new has none; bars show shares."""
    title, head, first, second = picture(BEFORE, NOW, WIDE, HIGH).splitlines()
    assert "15 sessions" in title
    names = ["BACKEND", "HEALTH", "STATE", "SESSIONS", "TURNS", "REQ/S", "FRAMES/S", "PROBE", "CPU"]
    assert head.split() == names
    assert first.split() == ["a", "healthy", "ready", "#" * 20, "10", "3", "25.0", "4.5", "5.0ms", "25%"]
    half = "#" * 10 + "." * 10
    assert second.split() == ["new", "healthy", "ready", half, "5", "0", "0.0", "0.0", "-", "-"]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 250])
def test_nothing_wraps(width: int) -> None:
    """Columns are left out from the right, then names and the title are cut; the rest stays aligned."""
    long = "chat-0.chat.default.svc.cluster.local."
    now = overview(
        12.0,
        backend("a", sessions=31999, requests=99999, frames=999999, cpu_seconds=9.0),
        backend(long, health="degraded", admin_state="maintenance"),
    )
    _, head, *lines = shown = picture(now, now, width, HIGH).splitlines()
    assert max(map(len, shown)) <= width
    assert ("CPU" in head) is (width >= 100)
    assert [line.split()[0] for line in lines] == ["a", long if width > 200 else f"{long[: width // 4 - 1]}~"]
    words = ["HEALTH", "healthy", "degraded"]
    assert {line.index(word) for line, word in zip([head, *lines], words, strict=True)} == {
        head.index("HEALTH")
    }


def test_the_usual_fits_the_usual_terminal() -> None:
    """At 80 columns every column of healthy replicas is there, with a bar; at 60 at least their requests."""
    replicas = [backend(f"replica-{n}", sessions=n, cpu_seconds=0.0) for n in range(1, 5)]
    wide = picture(overview(1.0, *replicas), overview(2.0, *replicas), 80, 24)
    assert "CPU" in wide
    assert "#####" in wide
    assert "REQ/S" in picture(overview(1.0, *replicas), overview(2.0, *replicas), 60, 24)


def test_more_backends_than_lines() -> None:
    """The last line says how many are not seen."""
    many = overview(1.0, *(backend(f"b{number}") for number in range(30)))
    shown = picture(many, many, 80, 24).splitlines()
    assert (len(shown), shown[-1]) == (24, "and 9 more backends")
    assert len(picture(many, many, 80, 32).splitlines()) == 32


def test_a_lost_connection_is_seen() -> None:
    """What was known last stays, under a line that says so."""
    assert picture(NOW, NOW, 80, 24, lost=True).splitlines()[0] == "connection lost, trying again"
    assert picture(NOW, NOW, 80, 24, lost=True).count("\n") == picture(NOW, NOW, 80, 24).count("\n")
