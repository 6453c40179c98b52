"""The files and packages that a configuration needs: whether the proxy could use them.

Looked at for a file that is about to be served or checked, not for a text: what a page of the
documentation names need not exist.
"""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from proxy import tls
from proxy.config.models import Config
from proxy.config.packages import needs
from proxy.config.problems import KeyPath

_OTEL = ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
# What has to be importable for a source; the extra that brings it is called as the source.
_EXTRAS = {"dns": "dns", "kubernetes": "kubernetes_asyncio", "docker": "aiodocker"}


def unusable(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yield where a file is named that cannot be used, and what to say about it."""
    if config.otel.endpoint is not None and not _is_installed(*_OTEL):
        yield ("otel", "endpoint"), needs("otel")
    pair = config.tls
    if pair.cert is not None and pair.key is not None:
        try:
            tls.server_context(pair.cert, pair.key)
        except tls.CertificateError as error:
            yield ("tls", error.key), str(error)
    for source in config.discovery.parts():
        if source in _EXTRAS and not _is_installed(_EXTRAS[source]):
            yield ("discovery", source), needs(source)
    for index, backend in enumerate(config.backends):
        if backend.tls.ca is not None:
            try:
                tls.client_context(backend.tls.ca, verify=backend.tls.verify)
            except tls.CertificateError as error:
                yield ("backends", index, "tls", error.key), str(error)


def unusable_store(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """As `unusable`, of what instances that share their sessions need."""
    sessions = config.sessions
    store = sessions.store.get_secret_value()
    scheme, _, rest = store.partition("://")
    if scheme == "sqlite" and rest and (reason := _unmakeable(Path(rest).parent)):
        message = f"must be a file in a folder that can be written: {reason}"
        yield ("sessions", "store"), message
    if sessions.files and (reason := _unmakeable(Path(sessions.files))):
        yield ("sessions", "files"), f"must be a folder that can be written: {reason}"
    if urlsplit(store).scheme in {"redis", "rediss", "unix"} and not _is_installed("redis"):
        yield ("sessions", "store"), needs("redis")


def _unmakeable(folder: Path) -> str:
    """Why a folder cannot be had; empty if it is there, or can be made, to write in it."""
    there = next(path for path in (folder, *folder.parents) if path.exists() or path == path.parent)
    if not there.is_dir():
        return f"{there} is not a folder"
    return "" if os.access(there, os.W_OK | os.X_OK) else f"{there} cannot be written"


def _is_installed(*modules: str) -> bool:
    try:
        return all(find_spec(module) is not None for module in modules)
    except ModuleNotFoundError:  # not even the package around it
        return False
