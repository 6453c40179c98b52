"""The real page does not notice that its instance went away: no disconnect, no banner, no disabled input."""

import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext

from tests.browser.chat_server import ChatServer
from tests.browser.tab import ANSWER, Tab
from tests.support.size import in_full

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

OpenTab = Callable[[], Tab]
NOTICE = "The answer was cut off"
STORY = "tell me a long story"
IDLE = 100.0  # seconds, of which a page endures 45 without a ping
PAUSE = 1.5  # seconds between an answer and the next message of a user
ROLLOUT = 120.0  # seconds on a busy machine
# A tool server of the user's, as `uvx` or `npx` would start one.
TOOLS = """
from mcp.server.fastmcp import FastMCP
server = FastMCP("tools")

@server.tool()
def add(a: int, b: int) -> int:
    return a + b

server.run()
"""
MORE = """
from chainlit.config import McpFeature, StdioMcpServer, config
TOOLS = StdioMcpServer(name="tools", type="stdio", command={command!r})
config.features.mcp = McpFeature(enabled=True, servers=[TOOLS])
listed = {{}}  # the tools that were listed here, by session

@cl.on_mcp_connect
async def list_tools(connection, session):
    listed[cl.context.session.id] = [tool.name for tool in (await session.list_tools()).tools]

async def use_tools():
    session, _ = cl.context.session.mcp_sessions["tools"]
    result = await session.call_tool("add", {{"a": 2, "b": 3}})
    await say(f"{{listed[cl.context.session.id]}} gave {{result.content[0].text}}")

async def ask_back():
    reply = await cl.AskUserMessage(content="Where do you live?", timeout=60).send()
    await say(f"You live in {{reply['output']}}.")

async def tell_a_story():
    story = cl.Message(content="")
    for number in range(200):
        await story.stream_token(f"word{{number}} ")
        await asyncio.sleep(0.1)
    await story.send()

@cl.on_message
async def more_answers(message):
    match message.content:
        case "which thread?":
            await say(f"This is thread {{cl.context.session.thread_id}}.")
        case "use your tools":
            await use_tools()
        case "ask me":
            await ask_back()
        case "tell me a long story":
            await tell_a_story()
        case _:
            await answer(message)
"""
# From now on, with something typed in already: the banner, and an input that is disabled.
WATCH = """
() => {
  const seen = window.seen = new Set();
  const look = () => {
    if (document.querySelector("#session-error")) seen.add("banner");
    if (!document.querySelector("#chat-submit:enabled")) seen.add("disabled");
  };
  new MutationObserver(look).observe(document.body, {subtree: true, childList: true, attributes: true});
  look();
}
"""


@pytest.fixture(scope="module")
def handing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatServer]:
    """Two replicas of the example, which can do more here."""
    folder = tmp_path_factory.mktemp("chat")
    (folder / "tools.py").write_text(TOOLS)
    server = ChatServer(folder, 2, more=MORE.format(command=f"{sys.executable} {folder / 'tools.py'}"))
    try:
        server.launch()
        server.wait_healthy()
        yield server
    finally:
        server.shut_down()


@pytest.fixture
def server(handing: ChatServer) -> Iterator[ChatServer]:
    """The server, whose replicas may still be on their way back; its log is shown if the test fails."""
    yield handing
    print(handing.tail(200))


def kill(pid: int, server: ChatServer) -> float:
    """Kills an instance once there is another; when."""
    server.wait_healthy()
    assert pid in {backend["pid"] for backend in server.backends()}
    killed = time.time()
    os.kill(pid, signal.SIGKILL)
    return killed


def kill_home(tab: Tab, server: ChatServer) -> float:
    """Kills the instance of a tab and waits until the page has heard of the next one; when it was killed."""
    killed = kill(tab.home, server)
    tab.wait_connected(killed)
    return killed


def texts(tab: Tab) -> list[str]:
    """What the page shows of the conversation."""
    return [*tab.said.all_inner_texts(), *tab.messages.all_inner_texts()]


def assert_unnoticed(tab: Tab, since: float, hand_overs: int = 1) -> None:
    """The page has heard of new instances, and of nothing else."""
    assert tab.noted(since) == ["connected"] * hand_overs
    assert tab.page.locator("#session-error").count() == 0
    assert not tab.reloaded
    assert tab.failures == []
    assert tab.errors == []


@pytest.mark.parametrize("transports", [None, ["websocket"], ["polling"]], ids=str)
def test_a_kill_at_rest_is_not_noticed(
    context: BrowserContext, server: ChatServer, transports: list[str] | None
) -> None:
    """The page keeps its connection, its input, its thread and what it shows; the next answer remembers."""
    if transports:  # as pages have it of an app with `transports` in its configuration
        context.add_init_script(f"window.transports = {json.dumps(transports)}")
    tab = Tab(context, server.url)
    tab.say("my name is Ada")
    thread = tab.say("which thread?").splitlines()[0]
    home, shown = tab.home, texts(tab)
    tab.page.locator("#chat-input").fill("who am I?")
    tab.page.locator("#chat-submit:enabled").wait_for()
    tab.page.evaluate(WATCH)
    killed = kill_home(tab, server)
    assert tab.page.evaluate("[...window.seen]") == []
    assert texts(tab) == shown
    count = tab.answers.count()
    tab.page.locator("#chat-submit").click()
    assert "You are Ada." in tab.answer(count)
    assert tab.home != home
    assert thread in tab.say("which thread?")
    assert tab.said.all_inner_texts() == ["my name is Ada", "which thread?", "who am I?", "which thread?"]
    assert tab.messages.count() == 5
    assert tab.page.evaluate("[...window.seen]") == ["disabled"], "as it is while nothing is typed"
    assert_unnoticed(tab, killed)
    tab.photograph(f"hand-over-at-rest-{'-'.join(transports or ['default'])}")


def test_a_kill_in_an_answer_leaves_what_was_streamed(open_tab: OpenTab, server: ChatServer) -> None:
    """The cursor goes, the notice is read once, and the input is free; no connection ends."""
    tab = open_tab()
    tab.say("my name is Ada")
    before, home = tab.messages.count(), tab.home
    server.wait_healthy()
    tab.send(STORY)
    growing = tab.begun(before)
    cursor = growing.locator(".loading-cursor")
    cursor.wait_for()
    seen = growing.inner_text().split()
    killed = time.time()
    os.kill(home, signal.SIGKILL)
    tab.wait_connected(killed)
    tab.page.get_by_text(NOTICE).wait_for(timeout=ANSWER)
    cursor.wait_for(state="detached", timeout=ANSWER)
    streamed = growing.inner_text().rstrip()  # the cursor stands behind a space
    words = streamed.split()
    assert words == [f"word{number}" for number in range(len(words))]
    assert words[: len(seen)] == seen
    tab.photograph("hand-over-cut-off")
    assert "You are Ada." in tab.say("who am I?")
    assert growing.inner_text().rstrip() == streamed
    assert tab.page.locator(".loading-cursor").count() == 0
    assert tab.page.get_by_text(NOTICE).count() == 1
    assert tab.messages.count() == before + 2
    assert_unnoticed(tab, killed)


def test_an_open_question_is_cleared(open_tab: OpenTab, server: ChatServer) -> None:
    """Nobody waits for the reply any more, so that what the user types next is a message."""
    tab = open_tab()
    tab.say("my name is Ada")
    home = tab.home
    tab.send("ask me")
    tab.page.get_by_text("Where do you live?").wait_for(timeout=ANSWER)
    killed = kill(home, server)
    tab.wait_connected(killed)
    tab.page.get_by_text(NOTICE).wait_for(timeout=ANSWER)
    tab.photograph("hand-over-question")
    assert "You are Ada." in tab.say("who am I?")
    assert tab.home != home
    assert_unnoticed(tab, killed)


def connect_tools(tab: Tab) -> None:
    """Connects the tool server of the app in the page's own dialogue."""
    tab.show()
    tab.page.locator("#message-composer button:has(svg.lucide-plug)").last.click()
    dialogue = tab.page.locator("#mcp-servers")
    with tab.page.expect_response(lambda response: response.url.endswith("/mcp")) as connected:
        dialogue.get_by_role("button", name="Connect").last.click()
    assert connected.value.ok
    dialogue.get_by_text("add", exact=True).wait_for()  # its tool, in the list of what is connected
    tab.page.keyboard.press("Escape")
    dialogue.wait_for(state="detached")


def test_a_tool_server_is_connected_again(open_tab: OpenTab, server: ChatServer) -> None:
    """The page, which hears of a connection, connects its tool servers to the instance that it has now."""
    tab = open_tab()
    connect_tools(tab)
    used = tab.say("use your tools")
    assert "['add'] gave 5" in used
    home = tab.home
    with tab.page.expect_response(lambda response: response.url.endswith("/mcp")) as connected:
        killed = kill_home(tab, server)
    assert connected.value.ok
    assert "['add'] gave 5" in tab.say("use your tools")
    assert tab.home != home
    assert_unnoticed(tab, killed)
    tab.photograph("hand-over-tools")


def rollout(server: ChatServer, body: dict[str, float] | None = None) -> str:
    """The state of the rollout; begins it if a body is given."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{server.admin}/api/rollout", data, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return str(json.load(response).get("state"))


def test_a_rollout_is_not_noticed(open_tab: OpenTab, server: ChatServer) -> None:
    """Each answer is whole and remembers; between two of them the page goes to a new replica."""
    server.wait_healthy()
    tab = open_tab()
    old = {backend["pid"] for backend in server.backends()}
    tab.say("my name is Ada")
    since = time.time()
    rollout(server, {"timeout": 60})
    turns = 1
    while rollout(server) == "running":
        assert time.time() < since + ROLLOUT
        assert f"Message {turns + 1} here" in tab.say("tell me something")
        turns += 1
        tab.page.wait_for_timeout(PAUSE * 1000)
    assert rollout(server) == "done"
    assert "You are Ada." in tab.say("who am I?")
    assert tab.home not in old
    assert tab.messages.count() == turns + 2
    assert tab.page.get_by_text(NOTICE).count() == 0
    assert_unnoticed(tab, since, len(tab.noted(since)))
    assert tab.noted(since)


@in_full
def test_pages_that_idle_after_hand_overs_stay_connected(
    chromium: Browser, context: BrowserContext, server: ChatServer
) -> None:
    """Each new instance says its pings in time, so that no page's patience with the first one ends."""
    polling = chromium.new_context()
    polling.add_init_script('window.transports = ["polling"]')
    try:
        tabs = [Tab(context, server.url), Tab(polling, server.url)]
        for tab in tabs:
            tab.say("my name is Ada")
        since = time.time()
        first = tabs[0].home
        for _ in range(3):  # whoever was at the other one is handed over twice, too
            server.wait_healthy()
            other = next(b["pid"] for b in server.backends() if b["pid"] != first)
            kill(first, server)
            first = other
            for tab in tabs:
                tab.page.wait_for_timeout(1000)
        tabs[0].page.wait_for_timeout(IDLE * 1000)
        for tab in tabs:
            noted = tab.noted(since)
            assert len(noted) >= 2
            assert_unnoticed(tab, since, len(noted))
            assert "You are Ada." in tab.say("who am I?")
    finally:
        polling.close()
