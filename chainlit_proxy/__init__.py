"""What a Chainlit app imports of chainlit-sticky-proxy: `from chainlit_proxy import on_restore`.

The package `proxy` beside it is the implementation, and a common name: an app may have a `proxy.py` of its
own, which then stands before it on the import path. So the part that runs in the app's process is found by
its place on the disk and loaded once, under a name that no app has, whether the app or the launcher of `run`
and `replica` asks first. Nothing else of the proxy is loaded, and nothing before one of these is called.
"""

import importlib.util
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["on_restore", "register_codec", "share"]

_Kind = TypeVar("_Kind")
_Callback = TypeVar("_Callback", bound=Callable[[], Awaitable[None]])

_PROXY = Path(__file__).absolute().parents[1] / "proxy"
_SESSIONS = "_chainlit_proxy_sessions"  # also known to proxy/sessions/codecs.py


def share(
    store: str,
    *,
    notice: str = "The answer was cut off because its server went away. Please ask again.",
    retry_turn: bool = False,
    files: str | None = None,
    file_limit: int = 10 * 1024 * 1024,
    health_secret: str | Sequence[str] = (),
    most_answers: int = 0,
    most_waiting: int = 1000,
) -> bool:
    """Share the sessions of this process through `store`, such as redis://localhost:6379; at the app's top.

    It does nothing where `run` or `replica` does it already. The arguments are the keys of the section
    `sessions`; `file_limit` is in bytes. Probes are answered with what `health_secret` proves, the
    `health.secret` of the proxies. With `most_answers` so many messages are answered at once and
    `most_waiting` wait for their turn (`balance.most_answers` and `balance.queue`). Returns whether sessions
    are shared; why not is logged. Raises ValueError for what cannot be meant, and ImportError without the
    package that the store needs.
    """
    shared: bool = _sessions().share(
        store,
        notice=notice,
        retry_turn=retry_turn,
        files=files,
        file_limit=file_limit,
        health_secret=health_secret,
        most_answers=most_answers,
        most_waiting=most_waiting,
    )
    return shared


def on_restore(callback: _Callback) -> _Callback:
    """Have `callback` run when a session was taken over, in its context and before its next message.

    A decorator, like Chainlit's, for what cannot be stored: make clients, models and agents again there.
    """
    _sessions().on_restore(callback)
    return callback


def register_codec(
    kind: type[_Kind],
    encode: Callable[[_Kind], Any],
    decode: Callable[[Any], _Kind],
    name: str | None = None,
) -> None:
    """Tell how values of a type are stored: `encode` makes what can be stored, `decode` the value again.

    They are stored under `name`, the type's qualified name unless given, never under that of its module: what
    was stored is read again when the type has moved.
    """
    _sessions().register_codec(kind, encode, decode, name)


def _sessions() -> Any:
    """The implementation; whoever asks first has it loaded."""
    return sys.modules.get(_SESSIONS) or _load(_SESSIONS, _PROXY / "sessions")


def _load(name: str, folder: Path) -> Any:
    """The package in a folder, under a name; whatever else of that name the import path has."""
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec
    assert spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]  # half of it would be taken for the whole
        raise
    return module
