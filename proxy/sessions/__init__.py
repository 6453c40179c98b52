"""A conversation outlives its instance: sessions shared between Chainlit processes.

Runs inside the Chainlit process and knows nothing of the proxy. The launcher of `run` and `replica` loads
this package by its path under another name, so that it needs no place on the app's import path; for that its
modules import each other relatively. An app that is started by `chainlit run` calls `share` in its first
lines.
"""

import asyncio
import importlib
import json
import logging
import sys
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .answers import Answers
from .chat import Unknown, find, made
from .codecs import CODECS
from .ending import at_the_end
from .files import Files, FolderFiles
from .hooks import Hooks
from .patience import keep_clients
from .proof import prove
from .redis_store import RedisFiles, RedisStore
from .sharing import Sharing
from .sqlite_store import SqliteStore
from .store import Store, StoreDown

__all__ = ["SharingSettings", "keep_clients", "on_restore", "register_codec", "share", "share_from_start"]

NOTICE = "The answer was cut off because its server went away. Please ask again."
FILE_LIMIT = 10 * 1024 * 1024
MOST_WAITING = 1000
SCHEMES = ("redis", "rediss", "unix")
FORMS = "redis://HOST:PORT, rediss://HOST:PORT, unix:///SOCKET or sqlite:///FILE"

log = logging.getLogger("chainlit_proxy.sessions")
_MARK = "_chainlit_proxy_hooks"  # on Chainlit's Socket.IO server, once sharing is hooked in
_Restores = Callable[[], Coroutine[Any, Any, None]]
_early: list[_Restores] = []  # what is to run at restores, from before sessions were shared
register_codec = CODECS.register
"""register_codec(type, encode, decode): how values of a type of the app are stored."""


@dataclass(frozen=True, slots=True)
class SharingSettings:
    """What an instance is told about sharing; see `sessions` in the configuration."""

    store: str = field(repr=False)  # a url may hold a password
    notice: str = NOTICE
    retry_turn: bool = False
    files: str | None = None  # a folder that all instances reach
    file_limit: int = FILE_LIMIT
    health: Sequence[str] = field(default=(), repr=False)  # secrets by which it proves itself to probes
    most_answers: int = 0  # messages that it answers at once, 0 for any number
    most_waiting: int = MOST_WAITING  # for their turn then

    @property
    def place(self) -> str:
        """Where sessions are shared: the store without what may be a secret. Raises ValueError."""
        scheme, _, _ = self.store.partition("://")
        where = urlsplit(self.store)
        if scheme in {"sqlite", "unix"}:
            return f"{scheme}://{where.path}"
        host = f"[{where.hostname}]" if ":" in (where.hostname or "") else where.hostname
        return f"{scheme}://{host}{f':{where.port}' if where.port else ''}"

    def to_text(self) -> str:
        """As the launcher reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> "SharingSettings":
        """What `to_text` wrote."""
        return cls(**json.loads(text))

    def open(self) -> tuple[Store, Files]:
        """The store and where files are kept. Raises ValueError or ImportError."""
        scheme, _, rest = self.store.partition("://")
        if scheme == "sqlite" and rest.startswith("/"):
            path = Path(rest)
            return SqliteStore(path), FolderFiles(Path(self.files or f"{path}.files"), self.file_limit)
        if scheme in SCHEMES and (urlsplit(self.store).hostname or scheme == "unix"):
            try:
                store = RedisStore(self.store)
            except ImportError:
                raise ImportError("needs the package redis: pip install 'redis>=5,<9'") from None
            folder = FolderFiles(Path(self.files), self.file_limit) if self.files else None
            return store, folder or RedisFiles(store, self.file_limit)
        raise ValueError(f"the store must be {FORMS}")

    def try_store(self) -> None:
        """Asks the store once, before the app's event loop runs. Raises StoreDown."""

        async def ask() -> None:
            store, _ = self.open()
            try:
                await store.ping()
            finally:
                await store.close()

        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, ask()).result()


def share(
    store: str,
    *,
    notice: str = NOTICE,
    retry_turn: bool = False,
    files: str | None = None,
    file_limit: int = FILE_LIMIT,
    health_secret: str | Sequence[str] = (),
    most_answers: int = 0,
    most_waiting: int = MOST_WAITING,
) -> bool:
    """Shares the sessions of this process through `store`, such as redis://localhost:6379.

    Does nothing where the launcher does it already. Returns whether they are shared; why not is logged.
    With `most_answers` so many messages are answered at once, and `most_waiting` wait for their turn.
    Raises ValueError for what cannot be meant, ImportError without the package the store needs. In any case
    clients are kept while the app blocks its event loop, and probes are answered with what `health_secret`
    proves, the `health.secret` of the proxies.
    """
    if min(most_answers, most_waiting) < 0:
        raise ValueError("most_answers and most_waiting must be 0 or greater")
    keep_clients()
    secrets = (health_secret,) if isinstance(health_secret, str) else health_secret
    prove(secrets)
    settings = SharingSettings(
        store,
        notice,
        retry_turn,
        files,
        file_limit,
        most_answers=most_answers,
        most_waiting=most_waiting,
    )
    try:
        if _hook_in(settings, str):
            log.info("sessions are shared in %s", settings.place)
    except Unknown as reason:
        log.warning("sessions are not shared: %s", reason)
        return False
    return True


def _hook_in(settings: SharingSettings, tell: Callable[[str], object]) -> bool:
    """Shares, once in a process: whether it was this call. `tell` hears why the store is down, "" when back.

    Raises Unknown, ValueError, ImportError.
    """
    if _hooks() is not None:
        return False
    names = find()
    store, files = settings.open()
    sharing = Sharing(store, files, lambda: float(names["config"].project.session_timeout), tell)
    answers = None
    if settings.most_answers:
        answers = Answers(settings.most_answers, settings.most_waiting, sharing.counts)
    hooks = Hooks(names, sharing, settings.notice, retry_turn=settings.retry_turn, answers=answers)
    CODECS.register(names["Message"], names["Message"].to_dict, partial(made, names["Message"]))
    hooks.on_restore += _early
    hooks.install()
    at_the_end(store.rest)
    sharing.counts.show()
    setattr(names["sio"], _MARK, hooks)
    return True


def share_from_start(settings: SharingSettings, status: Path | None = None) -> None:
    """As `share`, for who starts Chainlit's command line in this process: when that loads the app.

    Not sooner: the server reads at its import what the command line sets, such as the root path.
    The file `status` always says whether sessions are shared, for the supervisor to read: one line of JSON,
    `{"shared": true}` or `{"shared": false, "reason": "..."}`.
    """

    def tell(reason: str) -> None:
        if status is not None:
            half = status.with_name(f"{status.name}.half")
            with suppress(OSError):  # nobody is told, and the app runs all the same
                half.write_text(
                    json.dumps({"shared": False, "reason": reason} if reason else {"shared": True})
                )
                half.replace(status)

    def load_module(*arguments: Any, **named: Any) -> Any:
        prove(settings.health)
        try:
            _hook_in(settings, tell)
            settings.try_store()
            log.info("sessions are shared in %s", settings.place)
            tell("")
        except (Unknown, StoreDown, ValueError, ImportError) as error:
            log.error("sessions are not shared: %s", error)  # noqa: TRY400 - the text says it all
            tell(str(error))
        except Exception as error:  # the app runs all the same
            log.exception("sessions are not shared")
            tell(repr(error))
        return load(*arguments, **named)

    cli = importlib.import_module("chainlit.cli")
    load: Any = getattr(cli, "load_module", None)
    if load is not None:
        vars(cli)["load_module"] = load_module
    else:
        log.error("sessions are not shared: %s", reason := "this Chainlit has no chainlit.cli.load_module")
        tell(reason)


def on_restore(callback: _Restores) -> _Restores:
    """Has `callback` run when a session was taken over, in its context and before its next message.

    For what cannot be stored, such as clients and models: make it again there. A decorator, like Chainlit's.
    """
    hooks = _hooks()
    (_early if hooks is None else hooks.on_restore).append(callback)
    return callback


def _hooks() -> Hooks | None:
    """Those of this process, where sessions are shared; made by this package under whatever name."""
    server = sys.modules.get("chainlit.server")
    found: Hooks | None = getattr(getattr(server, "sio", None), _MARK, None)
    return found
