"""The folders of `run`, and of an instance that is started by hand."""

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from proxy.replicas import folder
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_PATIENCE", 0.1)


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


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this user's programs keep their state, and temporary folders elsewhere."""
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def taken(given: Path | None, app: Path, service: str = "") -> Path:
    """The folder that `run` takes; it is let go again."""
    own = folder.of_run(given, app, {"STATE_DIRECTORY": service})
    os.close(own.lock)
    return own.path


def test_whose_folder_it_is(state: Path, tmp_path: Path) -> None:
    """The option wins over the service's, the first that systemd lists, and that over the user's."""
    app = tmp_path / "chat" / "app.py"
    service = f"{tmp_path / 'one'}:{tmp_path / 'two'}"
    assert taken(tmp_path / "given", app, service) == tmp_path / "given"
    assert taken(None, app, service) == tmp_path / "one"
    path = taken(None, app)
    assert path.parent == state / "chainlit-proxy"
    assert path.name.startswith("chat-app-")
    assert path.stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "two").exists()


def test_each_app_has_its_own(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One folder for each path of an app, however it is written."""
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    paths = {taken(None, Path(name)) for name in ("a/app.py", "b/app.py", "a/../a/app.py", "a/other.py")}
    assert len(paths) == 3
    assert {path.parent for path in paths} == {state / "chainlit-proxy"}


def test_a_folder_of_the_user_is_closed_to_others(state: Path) -> None:
    """Also one that was there and open."""
    path = folder.user_folder(Path("app.py"))
    path.mkdir(parents=True)
    path.chmod(0o755)
    assert taken(None, Path("app.py")) == path
    assert path.stat().st_mode & 0o777 == 0o700
    assert path.is_relative_to(state)


@pytest.mark.usefixtures("state")
def test_a_second_run_of_an_app_is_refused() -> None:
    """It is told what to do; another app is not concerned."""
    own = folder.of_run(None, Path("app.py"), {})
    with pytest.raises(folder.FolderError, match=r"another `run` of app\.py .*: stop it, or name .* --state"):
        folder.of_run(None, Path("app.py"), {})
    taken(None, Path("other.py"))
    os.close(own.lock)


@pytest.mark.usefixtures("state")
def test_what_a_killed_run_had_started_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is let go a moment later is taken."""
    monkeypatch.setattr(folder, "_PATIENCE", 30.0)
    own = folder.of_run(None, Path("app.py"), {})
    threading.Timer(0.2, os.close, [own.lock]).start()
    assert taken(None, Path("app.py")) == own.path


def test_without_a_home_it_is_temporary(
    state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the user can have no folder, one that goes with the process is better than none; it is told."""
    state.touch()  # no folder can be made below it
    own = folder.of_run(None, Path("app.py"), {})
    assert own.temporary
    assert own.path.parent == state.parent / "temp"
    assert "will be lost when this process ends" in caplog.text
    assert "Not a directory; name a folder that can be written with --state" in caplog.text
    os.close(own.lock)
    monkeypatch.setattr(tempfile, "tempdir", str(state))
    with pytest.raises(folder.FolderError, match=r"no temporary folder can be made: .*; name a folder"):
        folder.of_run(None, Path("app.py"), {})


def test_a_named_folder_has_to_be_usable(state: Path, tmp_path: Path) -> None:
    """Whoever named one wants that and no other: it is refused, by the name of what named it."""
    state.touch()
    with pytest.raises(folder.FolderError, match=r"--state: .*: Not a directory; name a folder that can be"):
        folder.of_run(state / "below", Path("app.py"), {})
    with pytest.raises(folder.FolderError, match=r"STATE_DIRECTORY: .*: Not a directory"):
        folder.of_run(None, Path("app.py"), {"STATE_DIRECTORY": str(state / "below")})
    assert not list((tmp_path / "temp").iterdir())


def test_what_older_versions_left_is_removed(state: Path, tmp_path: Path) -> None:
    """Their folders had no lock: those that a process names on its command line are in use."""
    left, used, other = (
        tmp_path / "temp" / f"chainlit-proxy-{name}" for name in ("abcdefgh", "ijklmnop", "mine-abc")
    )
    for path in (left, used, other):
        (path / "replica-1").mkdir(parents=True)
    command = [sys.executable, "-c", "input()", "--state", str(used / "replica-1")]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        line = Path(f"/proc/{process.pid}/cmdline")
        wait_until(lambda: b"--state" in line.read_bytes(), 10, "its command line")  # empty right after exec
        taken(state, Path("app.py"))
        assert sorted((tmp_path / "temp").iterdir()) == [used, other]
        process.kill()
    taken(state, Path("app.py"))
    assert sorted((tmp_path / "temp").iterdir()) == [other]
