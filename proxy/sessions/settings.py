"""What an instance is told about sharing: by the supervisor, by the command line or by the app itself."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from .files import Files, FolderFiles
from .redis_store import RedisFiles, RedisStore
from .sqlite_store import SqliteStore
from .store import Store

NOTICE = "The answer was cut off because its server went away. Please ask again."
FILE_LIMIT = 10 * 1024 * 1024
SCHEMES = ("redis", "rediss", "unix")
FORMS = "redis://HOST:PORT, rediss://HOST:PORT, unix:///SOCKET or sqlite:///FILE"


@dataclass(frozen=True, slots=True)
class SharingSettings:
    """The settings; see `sessions` in the configuration."""

    store: str = field(repr=False)  # a url may hold a password
    notice: str = NOTICE
    retry_turn: bool = False
    files: str | None = None  # a folder that all instances reach
    file_limit: int = FILE_LIMIT

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
