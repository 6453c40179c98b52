"""The store for instances on several machines: Redis or Valkey.

A session is a hash that expires by itself. What reads and writes is one Lua script each, so it is one step,
on a cluster too: each uses one key. Files are keys of their own beside it. They come and go in pieces, each
with the time of an operation: a large one on a slow link is no store that is down, and leaves room for
others.
"""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from .files import Files
from .patience import within
from .store import OPERATION, SLOWEST, Claim, Outcome, Store, StoreDown, Write, why, writer_of

PREFIX = "chainlit-proxy:session:"
FILES = "chainlit-proxy:file:"
PING = "chainlit-proxy:ping"
PIECE = 64 * 1024  # bytes of a file at once

_CLAIM = """
local owner, fence, token, writer, turns =
  unpack(redis.call('hmget', KEYS[1], 'owner', 'fence', 'token', 'writer', 'turns'))
if owner and owner ~= ARGV[1] then return {0, 0, '', 0, false} end
fence = tonumber(fence or 0)
if token ~= ARGV[2] then
  fence = math.max(tonumber(ARGV[3]), owner and fence + 1 or 0)
  redis.call('hset', KEYS[1], 'owner', ARGV[1], 'fence', string.format('%.0f', fence), 'token', ARGV[2],
             'number', ARGV[5])
  if writer and writer ~= '' then
    writer = writer .. '+'
    redis.call('hset', KEYS[1], 'writer', writer)
  end
end
redis.call('pexpire', KEYS[1], ARGV[4])
return {fence, token == ARGV[2] and 1 or 0, writer or '', redis.call('hstrlen', KEYS[1], 'state'), turns}
"""
_WRITE = """
local owner, fence, number, token = unpack(redis.call('hmget', KEYS[1], 'owner', 'fence', 'number', 'token'))
if owner then
  if token == ARGV[2] then
    if owner == ARGV[1] and tonumber(number) > tonumber(ARGV[4]) then return 1 end
  elseif tonumber(fence) > tonumber(ARGV[3]) then
    return 0
  end
  if owner ~= ARGV[1] then return 0 end
  if tonumber(fence) > tonumber(ARGV[3]) then ARGV[3] = fence end
end
if ARGV[6] ~= 'keep' and ARGV[7] == '' then redis.call('hdel', KEYS[1], 'state') end
redis.call('hset', KEYS[1], 'owner', ARGV[1], 'token', ARGV[2], 'writer', ARGV[2], 'fence', ARGV[3],
           'number', ARGV[4])
if ARGV[7] ~= '' then redis.call('hset', KEYS[1], 'state', ARGV[7]) end
redis.call('hdel', KEYS[1], 'turns')
if ARGV[8] ~= '' then redis.call('hset', KEYS[1], 'turns', ARGV[8]) end
redis.call('pexpire', KEYS[1], ARGV[5])
return owner and 1 or 2
"""


def client_of(url: str, **options: Any) -> Any:
    """A client of `redis` for a URL; raises ImportError without that package.

    RFC 6066 section 3: names in TLS have no final dot, so no certificate has an absolute name.
    """
    import redis.asyncio  # noqa: PLC0415 - only who uses it needs it

    client = redis.asyncio.Redis.from_url(url, **options)
    pool: Any = client.connection_pool
    if issubclass(pool.connection_class, redis.asyncio.SSLConnection):

        class Named(pool.connection_class):  # type: ignore[misc]
            def _connection_arguments(self) -> dict[str, Any]:
                return {**super()._connection_arguments(), "server_hostname": self.host.removesuffix(".")}

        pool.connection_class = Named
    return client


class RedisStore(Store):
    """Connects at the first operation; raises ImportError without the package `redis`."""

    def __init__(self, url: str) -> None:
        import redis.asyncio  # noqa: PLC0415 - only who uses it needs it
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415

        self._errors = (redis.RedisError, OSError)  # a TimeoutError is one
        # Tried twice: a pooled connection may be one that the server has closed since. The time is ours.
        self.redis: Any = client_of(
            url, socket_timeout=None, socket_connect_timeout=None, retry=Retry(NoBackoff(), 1)
        )
        where = self.redis.connection_pool.connection_kwargs  # the url may hold a password
        self._name = f"{where.get('host') or where.get('path')}:{where.get('port', '')}"
        self._claim, self._write = map(self.redis.register_script, (_CLAIM, _WRITE))

    def __repr__(self) -> str:
        return f"<RedisStore {self._name}>"

    async def do(self, work: Awaitable[Any], size: int = 0) -> Any:
        """What Redis answers, in the time for this many bytes. Raises StoreDown."""
        try:
            async with within(OPERATION + size / SLOWEST):
                return await work
        except self._errors as error:
            raise StoreDown(f"{self._name}: {why(error)}") from error

    async def claim(
        self, session: str, owner: str, token: str, now: int, ttl: float, after: int = 0
    ) -> Claim:
        key = PREFIX + session
        answer = await self.do(self._claim([key], [owner, token, now, _ms(ttl), after]))
        fence, again, writer, size, turns = answer
        state = await self.do(self.redis.hget(key, "state"), size) if size else None
        name, taken = writer_of(writer.decode())
        return Claim(fence, bool(again), name, _text(state), _text(turns), taken)

    async def write(self, session: str, owner: str, token: str, write: Write, ttl: float) -> Outcome:
        state, turns = write.state or "", write.turns or ""
        keeps = "keep" if write.state is None else ""
        arguments: list[str | int] = [owner, token, write.fence, write.number, _ms(ttl), keeps, state, turns]
        done = self._write([PREFIX + session], arguments)
        return Outcome(await self.do(done, len(state) + len(turns)))

    async def touch(self, sessions: dict[str, int], token: str, ttl: float) -> list[str]:
        pipeline = self.redis.pipeline(transaction=False)
        for session in sessions:
            pipeline.pexpire(PREFIX + session, _ms(ttl)).hmget(PREFIX + session, "token", "number")
        found = (await self.do(pipeline.execute()))[1::2]
        asked = zip(sessions.items(), found, strict=True)
        return [name for (name, number), (has, last) in asked if has != token.encode() or int(last) < number]

    async def ping(self) -> None:
        await self.do(self.redis.set(PING, "", px=1000))

    async def rest(self) -> None:
        """As Store: there is nothing beside it."""

    async def close(self) -> None:
        await self.do(self.redis.aclose())


class RedisFiles(Files):
    """In the store itself, where instances share no folder."""

    def __init__(self, store: RedisStore, limit: int) -> None:
        self._store, self._limit = store, limit

    def __repr__(self) -> str:
        return f"<RedisFiles {self._store!r}>"

    async def keep(self, session: str, path: Path, ttl: float) -> bool:
        if (await asyncio.to_thread(path.stat)).st_size > self._limit:
            return False
        data, key = await asyncio.to_thread(path.read_bytes), _file_key(session, path.name)
        half, redis = f"{key}.half", self._store.redis
        for at in range(0, len(data) or 1, PIECE):
            steps = redis.pipeline().setrange(half, at, data[at : at + PIECE]).pexpire(half, _ms(ttl))
            await self._store.do(steps.execute())
        await self._store.do(redis.rename(half, key) if data else redis.set(key, "", px=_ms(ttl)))
        return True

    async def bring(self, session: str, path: Path, ttl: float) -> bool:
        redis, key, data = self._store.redis, _file_key(session, path.name), b""
        if not await self._store.do(redis.pexpire(key, _ms(ttl))):
            return False
        while piece := await self._store.do(redis.getrange(key, len(data), len(data) + PIECE - 1)):
            data += piece
        await asyncio.to_thread(_write, path, data)
        return True

    async def touch(self, session: str, names: list[str], ttl: float) -> list[str]:
        redis = self._store.redis
        return [
            name
            for name in names
            if not await self._store.do(redis.pexpire(_file_key(session, name), _ms(ttl)))
        ]

    async def drop(self, session: str, names: list[str]) -> None:
        for name in names:
            await self._store.do(self._store.redis.delete(_file_key(session, name)))

    async def sweep(self, ttl: float) -> None:
        """Redis forgets by itself."""


def _file_key(session: str, name: str) -> str:
    return f"{FILES}{{{session}:{name}}}"  # in braces: one slot of a cluster with its half


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(data)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
