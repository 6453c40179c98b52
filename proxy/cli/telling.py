"""What `run` and `replica` tell the instances that they start: how they share sessions, and what waits.

What is not for the app, and for what it starts, is kept from them: tokens of the operator, our own secrets.
"""

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from proxy.config import Config
from proxy.config.sections import Settings
from proxy.replicas import SHARING, forget

if TYPE_CHECKING:
    from proxy.sessions import SharingSettings

# Variables of ours that hold a secret; the launcher is told what it needs of them in another way.
_OURS = frozenset({"CHAINLIT_PROXY_HEALTH_SECRET", "CHAINLIT_PROXY_SESSIONS", "CHAINLIT_PROXY_TOKEN"})


def tell_replicas(config: Config, own: str, secrets: Sequence[SecretStr] = ()) -> "SharingSettings":
    """Tells the launcher of replicas, which has our environment; `own` is the store where none is named."""
    from proxy.sessions import SharingSettings  # noqa: PLC0415 - who only serves has none

    settings, balance = config.sessions, config.balance
    named = settings.store.get_secret_value()
    told = SharingSettings(
        own if named == "sqlite" else named,
        settings.notice,
        settings.retry_turn,
        settings.files,
        settings.file_limit,
        [secret.get_secret_value() for secret in secrets],
        most_answers=balance.most_answers,
        most_waiting=balance.queue,
    )
    os.environ[SHARING] = told.to_text()
    return told


def not_for_the_app(config: Config) -> set[str]:
    """The variables with a secret of this command, which are not to be found in its process either.

    The urls of stores are no such: the app may use the same one.
    """
    secrets = {secret.get_secret_value() for secret in _secrets(config)}
    names = {name for name, value in os.environ.items() if name in _OURS or value in secrets}
    forget(names)
    return names


def _secrets(value: Any) -> Iterator[SecretStr]:
    if type(value) is SecretStr:
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _secrets(item)
    elif isinstance(value, Settings):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name))
