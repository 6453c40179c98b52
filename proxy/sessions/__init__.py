"""A conversation outlives its instance: sessions shared between Chainlit processes.

Runs inside the Chainlit process and knows nothing of the proxy. The launcher of `run` and `replica` loads
this package by its path under another name, so that it needs no place on the app's import path; for that its
modules import each other relatively. An app that is started by `chainlit run` calls `share` in its first
lines.
"""

import importlib
import json
import logging
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import hooks
from .chat import Unknown
from .codecs import CODECS
from .settings import FILE_LIMIT, NOTICE, SharingSettings
from .store import StoreDown

__all__ = ["SharingSettings", "on_restore", "register_codec", "share", "share_from_start"]

log = logging.getLogger("chainlit_proxy.sessions")
_MARK = "_chainlit_proxy_hooks"  # on Chainlit's Socket.IO server, once sharing is hooked in
register_codec = CODECS.register
"""register_codec(type, encode, decode): how values of a type of the app are stored."""


def share(
    store: str,
    *,
    notice: str = NOTICE,
    retry_turn: bool = False,
    files: str | None = None,
    file_limit: int = FILE_LIMIT,
) -> bool:
    """Shares the sessions of this process through `store`, such as redis://localhost:6379.

    Does nothing where the launcher does it already. Returns whether they are shared; why not is logged.
    Raises ValueError for a store that cannot be meant, ImportError without the package it needs.
    """
    try:
        _hook_in(SharingSettings(store, notice, retry_turn, files, file_limit), str)
    except Unknown as reason:
        log.warning("sessions are not shared: %s", reason)
        return False
    return True


def _hook_in(settings: SharingSettings, tell: Callable[[str], object]) -> None:
    """Shares, once in a process; `tell` is told why the store is down, and "" when it is back."""
    import chainlit.server  # noqa: PLC0415 - only now: the command line sets first what it reads

    sio = getattr(chainlit.server, "sio", None)
    if not hasattr(sio, _MARK):
        installed = hooks.install(settings, tell)
        setattr(sio, _MARK, installed)


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
        try:
            _hook_in(settings, tell)
            tell("")
            settings.try_store()
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


def on_restore(callback: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], Coroutine[Any, Any, None]]:
    """Has `callback` run when a session was taken over, in its context and before its next message.

    For what cannot be stored, such as clients and models: make it again there. A decorator, like Chainlit's.
    """
    server = sys.modules.get("chainlit.server")
    installed: hooks.Hooks | None = getattr(getattr(server, "sio", None), _MARK, None)
    if installed is not None:
        installed.on_restore.append(callback)
    return callback
