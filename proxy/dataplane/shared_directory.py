"""The session directory that several proxies share, in Redis or Valkey (docs/several-proxies.md).

Asked only when a session is to be placed or moved: what a proxy knows costs nothing. What it sees is written
behind: at once, but nobody waits; many at a time in one round trip, each session once, however often it
changed meanwhile. Every change is also told to all proxies, so that none goes on by what it knew before. A
version decides what is newer (`affinity/telling.py`), in Redis and in each proxy.

While Redis does not answer, a proxy works as if it were alone, and nobody waits for it. When it is back, all
that this proxy knows is written, and what others know better is learned: so nothing need be queued meanwhile,
and a Redis that lost everything is soon filled again. Entries expire there as they do here.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, time
from typing import Any

from proxy.affinity.decision import EngineSession
from proxy.affinity.engine import Elsewhere
from proxy.affinity.router import Router
from proxy.affinity.session import Session
from proxy.affinity.telling import Entry, entry_of, learn
from proxy.backoff import SPREAD, Backoff
from proxy.borders import Border, Where, fault
from proxy.config import Config
from proxy.dataplane.patience import Stood, never, within
from proxy.dataplane.stats import Histogram

log = logging.getLogger("proxy.dataplane")

PREFIX = "chainlit-proxy:directory:"
_CHANNEL = "chainlit-proxy:directory:"  # and the number of the database: channels know none

_PATIENCE = 0.5  # seconds a round trip may take: a Redis nearby answers in one or two thousandths
_BATCH = 128  # operations of one round trip: the event loop is held for a few milliseconds at most
_MOST_WAITING = 20_000  # changed sessions that wait to be written; one that is given up is written later
_MOST_WANTED = 1000  # lookups that wait: those of eight round trips
_BEAT = 3.0  # seconds between two messages to oneself, which show that messages come
_DEAF = 3 * _BEAT  # seconds without any message after which none can be relied on
_AGAIN = 0.1  # seconds until a task that was cancelled and still runs is cancelled again
_RETRY = (0.2, 2.0)  # seconds until the next try, the first and the longest
_OUTLIVES = 4 / 3  # an entry is written anew each third of the time that it lives for beyond its last writing
_BUCKETS = tuple(2.0**power for power in range(-11, 0))  # seconds

_STARTS, _ENDS = "starts", "ends"  # what a turn does

# Writes an entry unless a newer one is there, which is then returned; tells everybody of a change.
_MERGE = """
local found = redis.call('get', KEYS[1])
if found and found ~= ARGV[2] and tonumber(string.match(found, '^%d+') or 0) >= tonumber(ARGV[1]) then
  redis.call('pexpire', KEYS[1], ARGV[3])
  return found
end
redis.call('set', KEYS[1], ARGV[2], 'PX', ARGV[3])
if found ~= ARGV[2] then redis.call('publish', ARGV[4], 's ' .. ARGV[2] .. ' ' .. ARGV[5]) end
return false
"""


class SharedDirectory:
    """One proxy's view of it; created by the app, asked by the plane."""

    def __init__(self, router: Router, stood: Stood = never) -> None:
        self.up = False  # whether Redis answers
        self.lookups = {"hit": 0, "miss": 0, "error": 0}
        self.writes = {"written": 0, "overruled": 0, "error": 0}
        self.learned = 0  # messages of other proxies that changed what was known here
        self.errors = 0  # times that Redis was lost, or could not be had
        self.seconds = Histogram(_BUCKETS)  # of lookups
        self._router = router
        self._stood = stood
        # Told of an open session that another proxy has moved or sent away; set by the plane.
        self.follow: Callable[[Session], None] | None = None
        self.takers: dict[str, Callable[[str], None]] = {}  # who takes messages of other kinds
        self._url: str | None = None
        self._wanted: OrderedDict[str, asyncio.Future[bool | None]] = OrderedDict()  # lookups that wait
        self._changed: OrderedDict[Session, None] = OrderedDict()  # sessions to be written
        self._backlog: deque[Session] = deque()  # those that are written when there is nothing newer
        self._messages: deque[str] = deque(maxlen=_MOST_WAITING)
        self._work = asyncio.Event()  # set while something is to be asked, written or told
        self._moved = asyncio.Event()  # set when the url was changed
        self._channel = ""
        self._name = ""  # of the server in the log: the url may hold a password
        self._quiet = False  # whether the log knows that it is down

    def configure(self, config: Config) -> None:
        """Share the directory with other proxies, or do not."""
        redis = config.affinity.directory.redis
        self.use(redis.get_secret_value() if redis else None)

    def use(self, url: str | None) -> None:
        """Share through this server from now on; None: not at all."""
        if url == self._url:
            return
        self._url = url
        on = url is not None
        self._router.shared = on
        self._router.directory.heard = self._heard if on else None
        self._router.engines.heard = self._connected if on else None
        self._moved.set()

    # What the data plane says and asks

    async def find(self, session_id: str) -> bool | None:
        """Learn where a session lives; return whether that is known, None if it cannot be told."""
        if not self.up:
            self.lookups["error"] += 1
            return None
        future = self._wanted.get(session_id)
        if future is None and len(self._wanted) >= _MOST_WANTED:
            self.lookups["error"] += 1
            return None
        if future is None:
            future = self._wanted[session_id] = asyncio.get_running_loop().create_future()
        self._work.set()
        began = monotonic()
        await asyncio.wait((future,))  # others may wait for it too: cancelled, we only leave
        self.seconds.add(monotonic() - began)
        found = future.result()
        self.lookups["error" if found is None else "hit" if found else "miss"] += 1
        return found

    def _heard(self, session: Session) -> None:
        """A session has connected, moved or ended a connection; while Redis is down it is written later."""
        if not self.up:
            entry_of(session, time())  # what happened when is told by its version
            return
        self._changed[session] = None
        if len(self._changed) > _MOST_WAITING:
            self._changed.popitem(last=False)
        self._work.set()

    def _connected(self, engine: EngineSession) -> None:
        """A poll has named the session of a transport, whose other requests may come to other proxies."""
        session = engine.session
        entry = entry_of(session, time()) if session is not None else None
        if session is None or entry is None or not self.up:
            return
        sids = b"%b %b" % (engine.sid, engine.upstream_sid)
        self.say(f"e {sids.decode('latin-1')} {entry} {session.id}")

    def say(self, text: str) -> None:
        """Tell all proxies; the first word is the kind of the message."""
        self._messages.append(text)
        self._work.set()

    def turn(self, session: Session) -> None:
        """A poll has told whether the app of a session answers; its next one may come to another proxy."""
        if self.up and session.backend is not None:
            state = _STARTS if session.in_turn else _ENDS
            self.say(f"t {state} {session.backend.name} {session.id}")

    # The work behind it

    async def run(self) -> None:
        """Keep in touch with Redis until cancelled."""
        backoff = Backoff(*_RETRY, SPREAD)
        while True:
            self._moved.clear()
            if self._url is None:
                await self._moved.wait()
                continue
            from redis.exceptions import RedisError  # noqa: PLC0415 - only who shares needs the package

            began = monotonic()
            try:
                await self._serve(self._url)
            except (RedisError, OSError, TimeoutError, ValueError) as error:
                self._lost(error)
            except Exception as error:
                fault(Where.DIRECTORY, error)
                self._lost(error)
            finally:
                self._down()
            if self._moved.is_set():
                continue
            if monotonic() - began > _RETRY[1]:
                backoff.reset()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), backoff.pause())

    async def _serve(self, url: str) -> None:
        """Connect and work until something fails, or another url is to be used."""
        client = _client(url)
        where = client.connection_pool.connection_kwargs
        self._name = f"{where.get('host') or where.get('path')}:{where.get('port', '')}".rstrip(":")
        self._channel = f"{_CHANNEL}{where.get('db') or 0}"
        messages = client.pubsub(ignore_subscribe_messages=True)
        tasks: list[asyncio.Task[Any]] = []
        try:
            async with within(_PATIENCE, self._stood):
                await messages.subscribe(self._channel)
            self._backlog.extend(self._router.directory.connected())
            self.up = True
            log.info("the directory is shared through %s", self._name)
            self._quiet = False
            work = (self._listen(messages), self._talk(client), self._beat(), self._moved.wait())
            tasks = [asyncio.ensure_future(part) for part in work]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            while unfinished := [task for task in tasks if not task.done()]:
                for (
                    task
                ) in unfinished:  # more than once: the client may swallow it as it gives a connection back
                    task.cancel()
                await asyncio.wait(unfinished, timeout=_AGAIN)
            await asyncio.gather(*tasks, return_exceptions=True)  # what else failed is of the same cause
            for end in (messages.aclose, client.aclose):
                with suppress(Exception):  # what is broken need not be closed well
                    await asyncio.wait_for(end(), _PATIENCE)

    async def _beat(self) -> None:
        """Say something to oneself now and then, and see that open sessions do not expire."""
        renew_at = monotonic() + self._renewal
        while True:
            self._messages.append("beat")
            self._work.set()
            await asyncio.sleep(_BEAT)
            if monotonic() >= renew_at:
                self._backlog.extend(self._router.directory.open())
                renew_at = monotonic() + self._renewal

    @property
    def _renewal(self) -> float:
        return self._router.directory.session_timeout * (_OUTLIVES - 1)

    async def _listen(self, messages: Any) -> None:
        while True:
            async with within(_DEAF, self._stood):
                message = await messages.get_message(timeout=None)
            if message is not None:
                with Border(Where.DIRECTORY):
                    self._take(message["data"])

    def _take(self, text: str) -> None:
        """A message: `s` is an entry and its session id, `e` two sids before these, `t` tells of a turn."""
        kind, _, rest = text.partition(" ")
        if kind == "t":
            self._take_turn(rest)
            return
        if kind in self.takers:
            self.takers[kind](rest)
            return
        sids = ["", ""]
        if kind == "e":
            *sids, rest = rest.split(" ", 2) if rest.count(" ") > 2 else ("", "", "")
        words = rest.split(" ", 4)
        if kind not in {"s", "e"} or len(words) != 5:
            return
        entry, session_id = Entry.parse(" ".join(words[:4])), words[4]
        directory, now = self._router.directory, monotonic()
        known = directory.get(session_id, now)
        if entry is None or (kind == "s" and known is None):
            return  # it is asked for when it is needed
        if known is None or known.version < entry.version:
            self.learned += 1
        backend = known.backend if known is not None and known.open else None
        session = learn(directory, self._router.fleet, session_id, entry, now)
        there = self._router.fleet.get(entry.backend)
        if kind == "e" and session is not None and there is not None:
            elsewhere = Elsewhere(session, there, sids[1].encode("latin-1", "replace"), now)
            self._router.engines.connected_elsewhere(sids[0].encode("latin-1", "replace"), elsewhere)
        if session is not None and backend is not None and session.has_left(backend) and self.follow:
            self.follow(session)

    def _take_turn(self, text: str) -> None:
        """How the turn of a session goes at a backend; whoever tells the same of it heard it earlier."""
        state, name, session_id = [*text.split(" ", 2), "", ""][:3]
        session = self._router.directory.get(session_id, monotonic())
        if session is not None and session.backend is not None and session.backend.name == name:
            session.set_turn(goes_on=state == _STARTS)

    async def _talk(self, client: Any) -> None:
        """Ask, write and tell, whatever there is, in one round trip after the other."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._wanted or self._changed or self._backlog or self._messages:
                await self._round_trip(client)

    async def _round_trip(self, client: Any) -> None:
        asked = list(self._wanted)[:_BATCH]
        messages = [self._messages.popleft() for _ in range(min(len(self._messages), _BATCH))]
        written = self._next_written(_BATCH)
        lives = int(self._router.directory.session_timeout * _OUTLIVES * 1000)
        pipeline = client.pipeline(transaction=False)
        if asked:
            pipeline.mget([PREFIX + session_id for session_id in asked])
        for session, entry in written:
            arguments = (entry.version, str(entry), lives, self._channel, session.id)
            pipeline.eval(_MERGE, 1, PREFIX + session.id, *arguments)
        for message in messages:
            pipeline.publish(self._channel, message)
        try:
            async with within(_PATIENCE, self._stood):
                results = await pipeline.execute()
        except BaseException:
            self.writes["error"] += len(written)
            raise
        if asked:
            for session_id, text in zip(asked, results.pop(0), strict=True):
                found: bool | None = None
                with Border(Where.DIRECTORY):
                    found = self._learn(session_id, text)
                self._wanted.pop(session_id).set_result(found)
        for (session, _), better in zip(written, results, strict=False):
            self.writes["overruled" if better else "written"] += 1
            with Border(Where.DIRECTORY):
                self._learn(session.id, better)

    def _next_written(self, most: int) -> list[tuple[Session, Entry]]:
        found: list[tuple[Session, Entry]] = []
        while len(found) < most and (self._changed or self._backlog):
            session = self._changed.popitem(last=False)[0] if self._changed else self._backlog.popleft()
            entry = entry_of(session, time())
            if entry is not None:
                found.append((session, entry))
        return found

    def _learn(self, session_id: str, text: str | None) -> bool:
        entry = Entry.parse(text) if text else None
        router = self._router
        return entry is not None and bool(
            learn(router.directory, router.fleet, session_id, entry, monotonic())
        )

    def _down(self) -> None:
        """Nothing can be asked or told; whoever waits goes on alone."""
        self.up = False
        for future in self._wanted.values():
            future.set_result(None)
        for waiting in (self._wanted, self._changed, self._backlog, self._messages):
            waiting.clear()

    def _lost(self, error: Exception) -> None:
        self.errors += 1
        if not self._quiet:
            self._quiet = True
            reason = str(error) or type(error).__name__
            log.warning("the shared directory at %s is lost, going on alone: %s", self._name, reason)

    def __repr__(self) -> str:
        return f"<SharedDirectory {self._name or 'off'} {'up' if self.up else 'down'}>"


def _client(url: str) -> Any:
    from redis.asyncio.retry import Retry  # noqa: PLC0415 - only who shares needs the package
    from redis.backoff import NoBackoff  # noqa: PLC0415

    from proxy.sessions.redis_store import client_of  # noqa: PLC0415 - as above

    return client_of(
        url,
        socket_connect_timeout=_PATIENCE,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),  # a connection that broke is noticed, since all is compared then
        decode_responses=True,
    )
