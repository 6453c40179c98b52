"""The folder of an instance that is started by hand."""

import os
import tempfile
from pathlib import Path

import pytest

from proxy.replicas import folder


@pytest.fixture
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_named_folder_is_had_by_one(tmp_path: Path) -> None:
    """It is made, for its user alone; a second is refused until the first lets go; nothing is removed."""
    path = tmp_path / "new" / "state"
    own = folder.named(path)
    (path / "mine").touch()
    assert (own.temporary, path.stat().st_mode & 0o777) == (False, 0o700)
    with pytest.raises(folder.FolderError, match="another instance uses this folder; give each its own"):
        folder.named(path)
    os.close(own.lock)
    os.close(folder.named(path).lock)
    assert (path / "mine").exists()


def test_a_link_to_a_folder_is_that_folder(tmp_path: Path) -> None:
    """As systemd makes one; by either name it is had once."""
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real").mkdir()
    own = folder.named(tmp_path / "link")
    with pytest.raises(folder.FolderError):
        folder.named(tmp_path / "real")
    os.close(own.lock)


def test_what_is_no_folder_is_told(tmp_path: Path) -> None:
    """One line with the option, the path and what to do."""
    (tmp_path / "file").touch()
    with pytest.raises(folder.FolderError, match=r"--state: .*/file: File exists; name a folder"):
        folder.named(tmp_path / "file")


def test_leftovers_are_removed_and_nothing_else(temp: Path) -> None:
    """A temporary folder that nobody holds is of an instance that was killed; others are left alone."""
    used, left = folder.temporary(), folder.temporary()
    (left.path / "upload").touch()
    os.close(left.lock)
    (temp / "other").mkdir()
    (temp / f"{folder.PREFIX}link").symlink_to(temp / "other")
    own = folder.temporary()
    assert {path.name for path in temp.iterdir()} == {
        *(used.path.name, own.path.name),
        *("other", f"{folder.PREFIX}link"),
    }
    assert os.get_inheritable(own.lock)
    os.close(used.lock)
    os.close(own.lock)


def test_no_place_for_a_temporary_folder_is_told(temp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which option names another."""
    monkeypatch.setattr(tempfile, "tempdir", str(temp / "none"))
    with pytest.raises(folder.FolderError, match="name a folder with --state"):
        folder.temporary()
