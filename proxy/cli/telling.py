"""What `run` and `replica` tell the instances that they start: how they share sessions, and what waits."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import SecretStr

from proxy.config import Config
from proxy.replicas import SHARING

if TYPE_CHECKING:
    from proxy.sessions import SharingSettings


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
