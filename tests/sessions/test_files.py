"""The shared folder of files: what a client calls its session leads nowhere else."""

import asyncio
import os
from pathlib import Path

import pytest

from proxy.sessions.files import FolderFiles

ODD = ["", ".", "..", "../outside", "short", "a" * 65, "session/../../outside", "session-\u00f6", "session 1"]


@pytest.mark.parametrize("session", ODD)
def test_only_folders_of_sessions_are_touched(session: str, tmp_path: Path) -> None:
    """An id that is none is refused by every operation, and no other session loses a file."""
    files = FolderFiles(tmp_path / "root", 10)
    upload, outside = tmp_path / "upload", tmp_path / "outside"
    upload.write_text("kept")
    outside.mkdir()

    async def scenario() -> None:
        assert await files.keep("session-1", upload, 60)
        for work in (
            files.keep(session, upload, 60),
            files.bring(session, upload, 60),
            files.touch(session, ["upload"], 60),
            files.drop(session, ["upload"]),
        ):
            with pytest.raises(ValueError, match="no session id"):
                await work

    asyncio.run(scenario())
    assert (tmp_path / "root" / "session-1" / "upload").read_text() == "kept"
    assert outside.is_dir()


def test_the_sweep_leaves_what_is_not_ours(tmp_path: Path) -> None:
    """Only folders that sessions are called by expire; links and others' files stay."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "session-1", root / "x", outside):
        folder.mkdir(parents=True)
        os.utime(folder, (0, 0))
    (root / "session-2").symlink_to(outside)
    asyncio.run(FolderFiles(root, 10).sweep(60))
    assert sorted(path.name for path in root.iterdir()) == ["session-2", "x"]
    assert outside.is_dir()
