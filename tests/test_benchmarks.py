"""The picture that the benchmark draws."""

import xml.etree.ElementTree as ET

from benchmarks.peers import OURS, PEERS
from benchmarks.picture import draw

SVG = "{http://www.w3.org/2000/svg}"
COSTS = {
    "poll & post": {OURS: 1.5, "HAProxy": 1.0, "nginx": 1.25, "aiohttp": 12.0},
    "frame": {OURS: 0.5, "HAProxy": 1.0, "nginx": 1.0},
}


def places(svg: ET.Element, kind: str) -> list[tuple[float, float]]:
    """Where the marks of a proxy are, without that of the legend."""
    found = []
    for mark in svg.findall(f"{SVG}path[@class='{kind}']"):
        x, y = mark.attrib["transform"].removeprefix("translate(").rstrip(")").split()
        found.append((float(x), float(y)))
    return found[1:]


def test_the_picture_can_be_read_by_all() -> None:
    """It is well-formed, says in words what it shows, and has colours for a dark page."""
    svg = ET.fromstring(draw(COSTS, list(PEERS), OURS))
    assert all(svg.findtext(f"{SVG}{tag}") for tag in ("title", "desc"))
    assert "prefers-color-scheme: dark" in (svg.findtext(f"{SVG}style") or "")


def test_the_picture_names_every_work_and_proxy() -> None:
    """Each work is a row, each proxy is in the legend, and our ratios are told as numbers."""
    svg = ET.fromstring(draw(COSTS, list(PEERS), OURS))
    words = [text.text for text in svg.findall(f"{SVG}text")]
    assert {*COSTS, *PEERS, "1.50", "0.50"} <= set(words)


def test_a_mark_stands_at_its_ratio() -> None:
    """Ours is right of the line of 1 where it costs more, left where less; the rivals' best is on it."""
    svg = ET.fromstring(draw(COSTS, list(PEERS), OURS))
    (line,) = svg.findall(f"{SVG}path[@class='one']")
    one = float(line.attrib["d"].removeprefix("M").split()[0])
    (dearer, _), (cheaper, _) = places(svg, "m0")
    assert cheaper < one < dearer
    assert {x for x, _ in places(svg, "m1")} == {one}


def test_a_cost_that_is_missing_has_no_mark() -> None:
    """A proxy that did not carry a work is left out of its row."""
    svg = ET.fromstring(draw(COSTS, list(PEERS), OURS))
    assert len(places(svg, f"m{list(PEERS).index('aiohttp')}")) == 1
