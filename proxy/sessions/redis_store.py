"""The store for instances on several machines: Redis or Valkey.

A session is a hash that expires by itself. What reads and writes is one Lua script each, so it is one step,
on a cluster too: each uses one key. Files are keys of their own beside it.
"""

import asyncio
from typing import Any

from .store import OPERATION, Claim, StoreDown

PREFIX = "chainlit-proxy:session:"
FILES = "chainlit-proxy:file:"

_CLAIM = """
local found = redis.call('hmget', KEYS[1], 'owner', 'fence', 'state', 'turns')
local now = tonumber(ARGV[2])
if found[1] and found[1] ~= ARGV[1] then return {0, 0, false, false} end
local previous = tonumber(found[2] or 0)
local fence = now
if found[1] and previous + 1 > now then fence = previous + 1 end
redis.call('hset', KEYS[1], 'owner', ARGV[1], 'fence', string.format('%.0f', fence))
redis.call('pexpire', KEYS[1], ARGV[3])
return {fence, previous, found[3], found[4]}
"""
_WRITE = """
local found = redis.call('hmget', KEYS[1], 'owner', 'fence')
if found[1] and (found[1] ~= ARGV[1] or tonumber(found[2]) > tonumber(ARGV[2])) then return 0 end
redis.call('hset', KEYS[1], 'owner', ARGV[1], 'fence', ARGV[2])
if ARGV[4] == '1' then redis.call('hset', KEYS[1], 'state', ARGV[5]) end
redis.call('hdel', KEYS[1], 'turns')
if ARGV[6] ~= '' then redis.call('hset', KEYS[1], 'turns', ARGV[6]) end
redis.call('pexpire', KEYS[1], ARGV[3])
return 1
"""
_DELETE = """
local fence = redis.call('hget', KEYS[1], 'fence')
if fence and tonumber(fence) <= tonumber(ARGV[1]) then return redis.call('del', KEYS[1]) end
return 0
"""


class RedisStore:
    """See `Store`. Connects at the first operation; raises ImportError without the package `redis`."""

    def __init__(self, url: str) -> None:
        import redis.asyncio  # noqa: PLC0415 - only who uses it needs it
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.exceptions import RedisError  # noqa: PLC0415

        self._errors = (RedisError, OSError, TimeoutError)
        # Tried twice: a pooled connection may be one that the server has closed since.
        self._redis: Any = redis.asyncio.Redis.from_url(
            url,
            socket_timeout=OPERATION,
            socket_connect_timeout=OPERATION,
            retry=Retry(NoBackoff(), 1),
            decode_responses=False,
        )
        where = self._redis.connection_pool.connection_kwargs  # the url may hold a password
        self._name = f"{where.get('host') or where.get('path')}:{where.get('port', '')}"
        self._claim, self._write, self._delete = map(self._redis.register_script, (_CLAIM, _WRITE, _DELETE))

    def __repr__(self) -> str:
        return f"<RedisStore {self._name}>"

    async def _do(self, work: Any) -> Any:
        try:
            async with asyncio.timeout(2 * OPERATION):
                return await work
        except self._errors as error:
            raise StoreDown(f"{self._name}: {error or type(error).__name__}") from error

    async def claim(self, session: str, owner: str, now: int, ttl: float) -> Claim:
        """See `Store`."""
        arguments: list[str | int] = [owner, now, int(ttl * 1000)]
        fence, previous, state, turns = await self._do(self._claim([PREFIX + session], arguments))
        return Claim(fence, previous, _text(state), _text(turns))

    async def write(
        self, session: str, owner: str, fence: int, state: str | None, turns: str | None, ttl: float
    ) -> bool:
        """See `Store`."""
        has_state = int(state is not None)
        arguments: list[str | int] = [owner, fence, int(ttl * 1000), has_state, state or "", turns or ""]
        return bool(await self._do(self._write([PREFIX + session], arguments)))

    async def touch(self, sessions: list[str], ttl: float) -> list[str]:
        """See `Store`."""
        pipeline = self._redis.pipeline(transaction=False)
        for session in sessions:
            pipeline.pexpire(PREFIX + session, int(ttl * 1000))
        found = await self._do(pipeline.execute())
        return [session for session, there in zip(sessions, found, strict=True) if not there]

    async def delete(self, session: str, fence: int) -> None:
        """See `Store`."""
        await self._do(self._delete([PREFIX + session], [fence]))

    async def purge(self) -> None:
        """See `Store`: nothing to do, Redis forgets by itself."""

    async def ping(self) -> None:
        """See `Store`."""
        await self._do(self._redis.ping())

    async def close(self) -> None:
        """See `Store`."""
        await self._do(self._redis.aclose())

    async def put_file(self, key: str, data: bytes, ttl: float) -> None:
        """Keeps the content of a file. Raises StoreDown."""
        await self._do(self._redis.set(FILES + key, data, px=int(ttl * 1000)))

    async def get_file(self, key: str, ttl: float) -> bytes | None:
        """The content of a file, which lives on. Raises StoreDown."""
        data: bytes | None = await self._do(self._redis.getex(FILES + key, px=int(ttl * 1000)))
        return data

    async def touch_files(self, keys: list[str], ttl: float) -> None:
        """Lets files live on. Raises StoreDown."""
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.pexpire(FILES + key, int(ttl * 1000))
        await self._do(pipeline.execute())

    async def drop_files(self, keys: list[str]) -> None:
        """Forgets files. Raises StoreDown."""
        for key in keys:
            await self._do(self._redis.delete(FILES + key))


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()
