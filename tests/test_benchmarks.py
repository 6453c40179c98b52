"""What the benchmark says: its browsers, its budgets, its configurations and its picture."""

import xml.etree.ElementTree as ET
from pathlib import Path

import h11
import pytest

from benchmarks import budget, page
from benchmarks.browsers import Browser
from benchmarks.budget import Budget, Row
from benchmarks.cost import WORKS, Cost
from benchmarks.http2 import SECURE, secure
from benchmarks.peers import COMPILED, LEARNING, OURS, PEERS, Peer, Running, UnavailableError, installed
from benchmarks.picture import draw
from proxy.config import load
from tests.support.certificates import Authority

SVG = "{http://www.w3.org/2000/svg}"
COSTS = {
    "poll & post": {OURS: 1.5, "HAProxy": 1.0, "nginx": 1.25, "aiohttp": 12.0},
    "frame": {OURS: 0.5, "HAProxy": 1.0, "nginx": 1.0},
}
MANY = 500  # browsers


def browsers() -> list[Browser]:
    """As many as a work may have."""
    return [Browser(number, "chat.example.com") for number in range(MANY)]


def fields(request: bytes) -> list[tuple[str, str]]:
    """The fields of a request, in their order, as h11 reads it, which is strict."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(request)
    head = server.next_event()
    assert isinstance(head, h11.Request)
    assert head.target == b"/"
    return [(name.decode(), value.decode()) for name, value in head.headers]


def test_browsers_differ() -> None:
    """No two say the same or come from one address; their user agents are many, and so are their orders."""
    said = [fields(browser.get(b"/")) for browser in browsers()]
    assert len({tuple(each) for each in said}) > 0.99 * MANY
    assert len({browser.address for browser in browsers()}) == MANY
    assert len({dict(each)["user-agent"] for each in said}) > 20
    assert len({tuple(name for name, _ in each) for each in said}) > 5


def test_a_browser_is_the_same_each_time() -> None:
    """Every proxy is asked by the same ones; only the session of a tab is its own."""
    for one, other in zip(browsers(), browsers(), strict=True):
        assert one.get(b"/") == other.get(b"/")
        assert one.session != other.session


@pytest.mark.parametrize("number", range(50))
def test_requests_are_well_formed(number: int) -> None:
    """A GET, a POST and an upgrade have what each has to have, and the cookies that were set."""
    browser = Browser(number, "chat.example.com")
    browser.keep([("SRV", "b1")])
    get, post, upgrade = browser.get(b"/"), browser.post_head(b"/", 12), browser.upgrade(b"/")
    assert post.startswith(b"POST ")
    assert dict(fields(post))["content-length"] == "12"
    assert dict(fields(upgrade))["upgrade"] == "websocket"
    assert dict(fields(upgrade))["sec-websocket-key"]
    for request in (get, post, upgrade):
        assert "SRV=b1" in dict(fields(request))["cookie"]
        assert dict(fields(request))["host"] == "chat.example.com"


def test_a_missed_budget_is_said_to_be_missed() -> None:
    """What is over its budget is bold and counted, each build by its own; others that are ahead are named."""
    ratios = {OURS: [2.0, 2.2, 1.9], COMPILED: [1.5, 1.5, 1.5]}
    row = Row("new websocket", "HAProxy 2.8", Budget(2.5, 1.4, 1.0), ratios, ["Envoy"])
    *_, line, _, word = budget.table([row])
    assert "| 2.5 | 2.00 (1.90-2.20) | 1.4 | **1.50 (1.50-1.50)** | 1 | Envoy |" in line
    assert word.startswith("1 of 2 budgets")


def test_what_is_dearer_than_others_is_told() -> None:
    """Ours is behind those that cost as much or less; those without a figure are not named."""
    costs = {OURS: 100.0, "Envoy": 90.0, "Caddy": 240.0}
    assert budget.behind(costs.get, OURS) == ["Envoy"]


def test_works_have_words_of_their_own() -> None:
    """The picture knows a work by its words, and a row is read alone."""
    assert len({work.words for work in WORKS.values()}) == len(WORKS)


def test_the_tables_of_the_costs(tmp_path: Path) -> None:
    """A work that a peer did not carry has no figure of it, and a build that is not there no column."""
    running = [Running(PEERS[name], "1.0", tmp_path) for name in (OURS, "HAProxy", "nginx", "Envoy")]
    cost = Cost([], running, [], tmp_path)
    cost.works = ["poll", "websockets"]
    for peer, figure in ((OURS, 30.0), ("HAProxy", 20.0), ("nginx", 25.0), ("Envoy", 40.0)):
        cost.figures["poll", peer] = [figure, 2 * figure]
        cost.figures["websockets", peer] = [4 * figure]
    cost.missing["websockets", "HAProxy"] = "not carried"
    text = "\n".join(cost.lines())
    assert "| 45.0 | 30.0 |" in text
    assert "| nginx 1.0 | 2.5 | 1.20 | 1.5 | - |" in text  # the only rival that carried the websockets
    assert "| HAProxy 1.0 | 1.4 | **1.50 (1.50-1.50)** | 1 | - |" in text
    assert cost.sentence().endswith("interpreted, a poll 1.50, a new websocket 1.20.")
    assert cost.relative()[WORKS["websockets"].words] == {OURS: 1.2, "nginx": 1.0, "Envoy": 1.6}


def test_a_work_that_no_proxy_carried_has_no_row(tmp_path: Path) -> None:
    """One line names it, and the table is of the others."""
    running = [Running(PEERS[name], "1.0", tmp_path) for name in (OURS, "HAProxy")]
    cost = Cost([], running, [], tmp_path)
    cost.works = ["poll", "paced5000"]
    for peer in (OURS, "HAProxy"):
        cost.figures["poll", peer] = [30.0]
        cost.missing["paced5000", peer] = "not carried"
    words = WORKS["paced5000"].words
    assert [line for line in cost.lines() if words in line] == [f"No proxy carried: {words}."]


def test_rows_without_a_figure_are_left_out() -> None:
    """Where all proxies have 0 or nothing, a row tells nothing; a single other figure keeps it."""
    rows = [["refused", "0", "0"], ["offline", "-", "0"], ["failed", "0", "4"]]
    assert page.telling(rows) == rows[2:]


@pytest.mark.parametrize("peer", [*PEERS.values(), LEARNING], ids=lambda peer: peer.name)
def test_every_configuration_can_be_written(peer: Peer, tmp_path: Path) -> None:
    """Each names its port, its folder and all backends."""
    running = Running(peer, "1.0", tmp_path / "peer")
    running.configure([8001, 8002])
    text = "".join(file.read_text() for file in (tmp_path / "peer").iterdir())
    assert all(str(port) in text for port in (running.port, 8001, 8002))


@pytest.mark.parametrize("name", [name for name in SECURE if name in PEERS])
def test_what_is_asked_by_tls_differs_in_that_alone(name: str, tmp_path: Path) -> None:
    """Its configuration names the pair of keys, and is otherwise that of all other works."""
    plain, peer = PEERS[name], secure(PEERS[name])
    added = set(peer.template.splitlines()) - set(plain.template.splitlines())
    assert any("{folder}/pair." in line for line in added)
    assert len(added) <= 3
    running = Running(peer, "1.0", tmp_path / "peer")
    running.configure([8001, 8002])
    if peer.is_ours:
        Authority(running.folder).issue("127.0.0.1", file="pair")
        assert load(running.folder / peer.file).tls.http2


def test_our_own_configuration_is_valid(tmp_path: Path) -> None:
    """It is one that the proxy takes."""
    running = Running(PEERS[OURS], "1.0", tmp_path / "peer")
    running.configure([8001, 8002])
    assert len(load(tmp_path / "peer" / "config").backends) == 2


def test_the_compiled_build_has_to_be_compiled(tmp_path: Path) -> None:
    """Whoever has the other build is left out: the figures would be the wrong ones."""
    python, package = tmp_path / "python", tmp_path / "proxy"
    package.mkdir()
    python.write_text(f"#!/bin/sh\necho 1.0 {package}\n")
    python.chmod(0o700)
    with pytest.raises(UnavailableError, match="not compiled"):
        installed(COMPILED, str(python)).version()
    assert installed(OURS, str(python)).version() == "1.0"
    (package / "head.cpython-311.so").touch()
    assert installed(COMPILED, str(python)).version() == "1.0"
    with pytest.raises(UnavailableError, match="is compiled"):
        installed(OURS, str(python)).version()


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
    """Each work is a row, each proxy in the legend has its own mark, and our ratios are told as numbers."""
    svg = ET.fromstring(draw(COSTS, list(PEERS), OURS))
    words = [text.text for text in svg.findall(f"{SVG}text")]
    assert {*COSTS, *PEERS, "1.50", "0.50"} <= set(words)
    kinds = {mark.attrib["class"] for mark in svg.findall(f"{SVG}path") if "transform" in mark.attrib}
    assert len(kinds) == len(PEERS)


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
