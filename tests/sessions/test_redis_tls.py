"""A Redis behind TLS that is named absolutely, as the warning of relative names asks for."""

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from proxy.dataplane import shared_directory
from proxy.sessions.redis_store import RedisStore
from tests.support.certificates import Authority

NAME = "redis.chat.svc.cluster.local"


@pytest.mark.parametrize("dot", ["", "."], ids=["without", "with a final dot"])
@pytest.mark.parametrize("who", ["store", "directory"])
def test_an_absolute_name_is_that_of_the_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str, dot: str
) -> None:
    """The dot is for the resolver; a certificate for another name is refused with it and without."""
    monkeypatch.setattr(shared_directory, "_PATIENCE", 10.0)
    authority = Authority(tmp_path)
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *more, **options: real(
            "127.0.0.1" if str(host).endswith((NAME, f"{NAME}.")) else host, *more, **options
        ),
    )

    async def asks(name: str) -> bool:
        """Whether a client of `NAME` sends anything to a server with a certificate for a name."""
        heard = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if said := await reader.read(65536):
                heard.set()
                writer.write(b"+OK\r\n" * said.count(b"*"))
            writer.close()

        pair = authority.issue(name)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair["cert"], pair["key"])
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
        url = f"rediss://{NAME}{dot}:{server.sockets[0].getsockname()[1]}/0?ssl_ca_certs={authority.file}"
        client: Any = RedisStore(url).redis if who == "store" else shared_directory._client(url)
        try:
            await client.ping()
        except redis.RedisError as error:
            print(error)
        await client.aclose()
        server.close()
        await server.wait_closed()
        return heard.is_set()

    assert asyncio.run(asks(NAME))
    assert not asyncio.run(asks(f"other.{NAME}"))
