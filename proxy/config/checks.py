"""What no key tells alone: values that exclude each other, and the files and packages that they need.

Values are compared as far as each can be read, whatever else is wrong. Files and packages are looked for
where a file is about to be served or checked, not for a text: what a page of the documentation names need
not exist.
"""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from pydantic import SecretStr, ValidationError

from proxy import tls
from proxy.config.address import Address
from proxy.config.models import BackendSettings, Config
from proxy.config.packages import needs
from proxy.config.problems import KeyPath, got, key_text
from proxy.config.sections import Settings
from proxy.config.tls_settings import TlsSettings

S = TypeVar("S", bound=Settings)

_OTEL = ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
# What has to be importable for a source; the extra that brings it is called as the source.
_EXTRAS = {"dns": "dns", "kubernetes": "kubernetes_asyncio", "docker": "aiodocker"}


def conflicts(data: Any, *, alone: bool) -> Iterator[tuple[KeyPath, str]]:
    """Yield where values exclude each other, and what to say about it; `alone`, backends have no proxy."""
    bound, admin = _readable(Config, data, "listen"), _readable(Config, data, "admin")
    listen, admin_listen = (bound.listen if bound else ()), (admin.admin.listen if admin else None)
    for address in listen:
        if admin_listen and admin_listen.collides_with(address):
            yield ("admin", "listen"), f"must be another address than that of listen, {address}"
    if bound and not alone:
        yield from _doors(listen, _readable(Config, data, "tls"))
    yield from _hidden(_readable(Config, data, "health", "affinity", "socketio_path"))
    own = () if alone else (*listen, *([admin_listen] if admin_listen else ()))
    names, urls = dict[str, int](), dict[str, int]()
    items = data.get("backends") if isinstance(data, dict) else None
    for index, item in enumerate(items if isinstance(items, list) else ()):
        backend = _readable(BackendSettings, item, "url", "name")
        if backend is None:
            continue
        place: KeyPath = ("backends", index)
        same_url, same_name = urls.setdefault(backend.url, index), names.setdefault(backend.name, index)
        if same_url != index:
            yield (*place, "url"), f"must differ from that of backends[{same_url}]{got(backend.url)}"
        # A name made from a url that is given twice is no mistake of its own.
        if same_name != index and (same_url == index or "name" in backend.model_fields_set):
            rule = f"must differ from that of backends[{same_name}]"
            if "name" not in backend.model_fields_set:
                rule = f"is made from the url, and {rule}: give it a name of its own"
            yield (*place, "name"), rule + got(backend.name)
        for address in own:
            if address.answers(backend.address):
                message = f"must not be the proxy itself, which listens on {address}{got(backend.url)}"
                yield (*place, "url"), message


def _hidden(data: Config | None) -> Iterator[tuple[KeyPath, str]]:
    """Yield where the proxy's own health would stand in place of the page or of Socket.IO."""
    path = data.health.listen_path if data else None
    if data is None or path is None:
        return
    bare = path.rstrip("/") or "/"
    if bare in {"/", *data.affinity.roots} or bare.endswith(
        tuple(at.rstrip("/") for at in data.socketio_path)
    ):
        rule = "must be a path that the app does not have, such as /.chainlit-proxy/healthz"
        yield ("health", "listen_path"), f"{rule}: nobody could reach the app there{got(path)}"


def _doors(listen: tuple[Address, ...], data: Config | None) -> Iterator[tuple[KeyPath, str]]:
    """Yield where the addresses of clients do not fit TLS."""
    if data is None:
        return
    plain = [address for address in listen if address.plain]
    if plain and not data.tls.is_on:
        yield (
            ("listen",),
            f"must not begin with http://, because there is no TLS beside it{got(str(plain[0]))}",
        )
    elif plain and all(address.plain or address.is_unix for address in listen):
        yield ("listen",), f"must hold an address for HTTPS as well, such as 0.0.0.0:443{got(str(plain[0]))}"
    elif data.tls.acme.domains and not plain:
        message = "need a plain address in listen, such as http://0.0.0.0:80: the authority asks there"
        yield ("tls", "acme", "domains"), message


def _readable(model: type[S], data: Any, *keys: str) -> S | None:
    """Some keys of a section without the others, if they are right."""
    try:
        return model.model_validate({key: data[key] for key in keys if key in data})
    except (ValidationError, TypeError):  # the latter where it is no section
        return None


def unusable(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yield where a file is named that cannot be used, and what to say about it."""
    if config.otel.endpoint is not None and not _is_installed(*_OTEL):
        yield ("otel", "endpoint"), needs("otel")
    shared = config.affinity.directory.redis
    if shared is not None and (reason := _unusable_redis(shared)):
        yield ("affinity", "directory", "redis"), reason
    yield from _unusable_tls(config.tls)
    for source in config.discovery.parts():
        if source in _EXTRAS and not _is_installed(_EXTRAS[source]):
            yield ("discovery", source), needs(source)
    for index, backend in enumerate(config.backends):
        if backend.tls.ca is not None:
            try:
                tls.client_context(backend.tls.ca, verify=backend.tls.verify)
            except tls.CertificateError as error:
                yield ("backends", index, "tls", error.key), str(error)


def _unusable_tls(settings: TlsSettings) -> Iterator[tuple[KeyPath, str]]:
    for place, cert, key in settings.pairs():
        missing = list(tls.unreadable(cert=cert, key=key))
        yield from (((*place, error.key), str(error)) for error in missing)
        if missing:
            continue
        try:
            tls.server_context(cert, key, place=key_text(place))
        except tls.CertificateError as error:
            yield (*place, error.key), str(error)
    acme = settings.acme
    if not acme.domains:
        return
    if not _is_installed("acme"):
        yield ("tls", "acme"), needs("acme")
    if acme.folder is not None and (reason := _unmakeable(Path(acme.folder), "folder")):
        yield ("tls", "acme", "folder"), f"must be a folder that can be written: {reason}"
    if acme.ca is not None:
        try:
            tls.client_context(acme.ca, verify=True)
        except tls.CertificateError as error:
            yield ("tls", "acme", error.key), str(error)


def unusable_store(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """As `unusable`, of what instances that share their sessions need."""
    sessions = config.sessions
    if sessions.shared is False:
        return
    scheme, _, rest = sessions.store.get_secret_value().partition("://")
    if scheme == "sqlite" and rest and (reason := _unmakeable(Path(rest), "file")):
        yield ("sessions", "store"), f"must be a file in a folder that can be written: {reason}"
    if sessions.files and (reason := _unmakeable(Path(sessions.files), "folder")):
        yield ("sessions", "files"), f"must be a folder that can be written: {reason}"
    if scheme != "sqlite" and (reason := _unusable_redis(sessions.store)):
        yield ("sessions", "store"), reason


def _unusable_redis(url: SecretStr) -> str:
    """Why the url of a Redis cannot be used; empty if it can. Nobody is connected to."""
    if not _is_installed("redis"):
        return needs("redis")
    from redis.asyncio import ConnectionPool  # noqa: PLC0415 - only who uses it needs it
    from redis.exceptions import RedisError  # noqa: PLC0415

    try:
        ConnectionPool.from_url(url.get_secret_value()).make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, RedisError):  # their text may hold a piece of a password
        return "must have only what redis-py knows behind its ?, and a number where one belongs"
    return ""


def _unmakeable(path: Path, kind: str) -> str:
    """Why a folder or file cannot be had; empty if it is there, or can be made, and can be written."""
    try:
        there = next(each for each in (path, *path.parents) if each.exists() or each == each.parent)
        kind = kind if there == path else "folder"
        is_right = there.is_dir() if kind == "folder" else there.is_file()
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        return str(error.strerror)
    if not is_right:
        return f"{there} is not a {kind}"
    wanted = os.W_OK | (os.X_OK if kind == "folder" else os.R_OK)
    return "" if os.access(there, wanted) else f"{there} cannot be written"


def _is_installed(*modules: str) -> bool:
    try:
        return all(find_spec(module) is not None for module in modules)
    except ModuleNotFoundError:  # not even the package around it
        return False
