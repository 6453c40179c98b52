"""What `run` and `replica` tell the instances that they start: how they share sessions, and what waits.

What is not for the app, and for what it starts, is kept from them: tokens of the operator, our own secrets.
"""

import os
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from pydantic import SecretStr

from proxy.config import Config
from proxy.replicas import SHARING, forget

if TYPE_CHECKING:
    from proxy.sessions import SharingSettings

# Variables of ours that hold a secret; the launcher is told what it needs of them in another way.
_OURS = frozenset({"CHAINLIT_PROXY_HEALTH_SECRET", "CHAINLIT_PROXY_SESSIONS", "CHAINLIT_PROXY_TOKEN"})
_CHAINLITS = re.compile(r"CHAINLIT_(?!PROXY_)")  # those that Chainlit reads itself


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


def not_for_the_app(secrets: Collection[str]) -> set[str]:
    """The variables with a secret of this command, which are not to be found in its process either.

    `secrets` are those that its file names for one; what Chainlit reads itself stays.
    """
    names = {name for name in _OURS.union(secrets) if name in os.environ and not _CHAINLITS.match(name)}
    forget(names)
    return names
