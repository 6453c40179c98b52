"""One tab with the Chainlit page in it, as the user sees it and as its socket lives.

What goes wrong is collected from the first request on: console messages, refused and failed requests of our
own address. When the page's socket was connected and when it was closed is noted inside the page, to the
millisecond, because the page itself shows nothing while it is away only for a moment.
"""

import os
import re
import signal
from pathlib import Path

from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Request, Response, expect

from tests.browser.chat_server import ChatServer

ARTEFACTS = Path(__file__).parents[2] / "artefacts"
MESSAGES = "[data-step-type=assistant_message]"
PROCESS = re.compile(r"process (\d+)")
# The last line of each answer of the example app.
SIGNED = re.compile(r"Message (\d+) here, at .*process (\d+)")
ANSWER = 15_000  # milliseconds for a whole answer; a long one streams for two seconds
OBSERVE = """
(() => {
  const notes = window.socketNotes = [];
  const note = (what) => notes.push([what, Date.now()]);
  const packets = {opened: /^0\\{"sid"/, connected: /(^|\\x1e)40\\{"sid"/};
  const read = (data) => {
    for (const what in packets) if (packets[what].test(data)) note(what);
  };
  window.WebSocket = class extends window.WebSocket {
    constructor(...args) {
      super(...args);
      this.addEventListener("close", () => note("closed"));
      this.addEventListener("message", ({data}) => read(data));
    }
  };
  const open = XMLHttpRequest.prototype.open;
  XMLHttpRequest.prototype.open = function (method, url, ...rest) {
    if (String(url).includes("transport=polling"))
      this.addEventListener("load", () => read(this.responseText));
    return open.call(this, method, url, ...rest);
  };
})();
"""


def _is_upload(response: Response) -> bool:
    """Elements of messages, such as the greeting's, are asked for at paths that begin alike."""
    return response.request.method == "POST" and "/project/file" in response.url


class Tab:
    """A page of a browser context; opened by a test, closed with the context."""

    def __init__(self, context: BrowserContext, url: str, embedded_in: str | None = None) -> None:
        """`url` is the app's; the page itself may be another site's that embeds it as a widget."""
        self.url = url
        self.errors: list[str] = []  # the console's
        self.failures: list[str] = []  # requests that failed or were answered with 400 or more
        self.page = context.new_page()
        self.page.add_init_script(OBSERVE)
        self.page.on("console", self._hear)
        self.page.on("response", self._judge)
        self.page.on("requestfailed", self._mourn)
        self.page.goto(embedded_in or url)
        if embedded_in:
            self.page.locator("#chainlit-copilot-button").click(timeout=ANSWER)
        self.origin = self.page.evaluate("performance.timeOrigin")  # another one after a reload
        self.messages.first.wait_for(timeout=ANSWER)

    def _hear(self, message: ConsoleMessage) -> None:
        where = message.location["url"]
        if message.type == "error" and (not where or where.startswith(self.url)):
            self.errors.append(message.text)

    def _judge(self, response: Response) -> None:
        if response.status >= 400 and response.url.startswith(self.url):
            self.failures.append(f"{response.status} {response.request.method} {response.url}")

    def _mourn(self, request: Request) -> None:
        # What the page itself gives up, such as its last poll before the websocket, is no failure.
        if request.url.startswith(self.url) and request.failure != "net::ERR_ABORTED":
            self.failures.append(f"{request.failure} {request.method} {request.url}")

    @property
    def messages(self) -> Locator:
        """What the app said, greetings included."""
        return self.page.locator(MESSAGES)

    @property
    def said(self) -> Locator:
        """What the user said."""
        return self.page.locator("[data-step-type=user_message]")

    @property
    def answers(self) -> Locator:
        """The complete answers to what the user said."""
        return self.messages.filter(has_text=SIGNED)

    @property
    def home(self) -> int:
        """The process that gave the last complete answer, or the greeting."""
        return int(PROCESS.findall(self.messages.last.inner_text())[-1])

    @property
    def reloaded(self) -> bool:
        """Whether the page was loaded again since it was opened."""
        return bool(self.page.evaluate("performance.timeOrigin") != self.origin)

    def show(self) -> None:
        """Brings the tab to the front; one that is behind another draws about once a second."""
        self.page.bring_to_front()

    def send(self, text: str) -> None:
        """Types a message and presses the button; the button takes it when the last answer has ended."""
        self.show()
        self.page.locator("#chat-input").fill(text)
        self.page.locator("#chat-submit").click()

    def say(self, text: str) -> str:
        """Sends a message; the whole answer."""
        count = self.answers.count()
        self.send(text)
        return self.answer(count)

    def begun(self, index: int) -> Locator:
        """Waits for the first words of a message, looking often enough to see an answer grow."""
        message = self.messages.nth(index)
        words = (
            "([selector, index]) => "
            '/\\S\\s\\S/.test(document.querySelectorAll(selector)[index]?.innerText ?? "")'
        )
        self.page.wait_for_function(words, arg=[MESSAGES, index], timeout=ANSWER, polling=20)
        return message

    def answer(self, count: int) -> str:
        """Waits for the answer after the first `count`."""
        answer = self.answers.nth(count)
        answer.wait_for(timeout=ANSWER)
        return answer.inner_text()

    def frozen_in_an_answer(self, server: ChatServer) -> Locator:
        """Stops the instance while it streams an answer; the message on the page."""
        home = self.home
        for _ in range(5):  # on a busy machine an answer may be whole before it is seen to begin
            before = self.messages.count()
            self.send("tell me something")
            growing = self.begun(before)
            os.kill(home, signal.SIGSTOP)
            if server.answering(home):
                return growing
            os.kill(home, signal.SIGCONT)
        raise AssertionError("no answer was seen to begin")

    def attach(self, file: Path) -> str:
        """Uploads a file by the paper clip, and waits until the upload has ended; where it can be fetched."""
        self.show()
        with self.page.expect_response(_is_upload) as uploaded:
            self.page.locator("#upload-button-input").set_input_files(file)
        assert uploaded.value.ok, f"upload: {uploaded.value.status} {uploaded.value.text()}"
        return uploaded.value.url.replace("?", f"/{uploaded.value.json()['id']}?")

    def fetch(self, address: str) -> str:
        """What the page gets there."""
        ask = "async (url) => { const got = await fetch(url); return `${got.status} ${await got.text()}`; }"
        return str(self.page.evaluate(ask, address))

    def press(self, label: str) -> str:
        """Presses the last button of that label; the message that comes of it."""
        self.show()
        count = self.messages.count()
        self.page.get_by_role("button", name=label).last.click()
        expect(self.messages).to_have_count(count + 1, timeout=ANSWER)
        message = self.messages.last
        expect(message).to_contain_text(PROCESS)
        return message.inner_text()

    def wait_connected(self, since: float) -> float:
        """Waits until the socket is connected anew; seconds from `since`, a time of the clock."""
        newer = "(since) => window.socketNotes.find(([what, at]) => what === 'connected' && at >= since)?.[1]"
        at = self.page.wait_for_function(newer, arg=since * 1000, timeout=ANSWER, polling=20).json_value()
        return float(at) / 1000 - since

    def was_closed(self, since: float) -> bool:
        """Whether the socket was closed after a time of the clock."""
        closed = "(since) => window.socketNotes.some(([what, at]) => what === 'closed' && at >= since)"
        return bool(self.page.evaluate(closed, since * 1000))

    def noted(self, since: float) -> list[str]:
        """What became of the socket after a time of the clock."""
        newer = "(since) => window.socketNotes.filter(([, at]) => at >= since).map(([what]) => what)"
        return list(self.page.evaluate(newer, since * 1000))

    def photograph(self, name: str) -> None:
        """Keeps a screenshot as an artefact of the test run."""
        ARTEFACTS.mkdir(exist_ok=True)
        self.show()
        self.page.screenshot(path=ARTEFACTS / f"{name}.png")
