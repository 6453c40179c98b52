"""An app whose folder cannot be written, as in an image: its own configuration and files are used."""

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.docs.test_dockerfile import STEPS, command
from tests.support.proxy_process import COMMAND
from tests.support.sharing import APP, Instance

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

# As root, what `chmod` takes away is not allowed either, as for the user of the image.
AS_USER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
CONFIG = "[project]\nsession_timeout = 1234\n[UI]\nname = 'Our Bot'\n[meta]\ngenerated_by = '2.12.0'\n"
LOOKS = (
    "import os, pathlib, chainlit.config as c\n"
    "print('seen', c.config.project.session_timeout, (pathlib.Path(c.APP_ROOT) / 'data.txt').read_text())\n"
    "print('stores', [name for name in os.environ if 'sqlite://' in os.environ[name]])\n"
)
Start = Callable[..., Instance]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The app, with all that Chainlit reads beside it."""
    folder = tmp_path / "app"
    for name in (".chainlit/translations", "public/avatars"):
        (folder / name).mkdir(parents=True)
    shutil.copy(APP, folder / "app.py")
    files = {
        "app.py": f"{APP.read_text()}\n{LOOKS}",
        "chainlit.md": "# Welcome",
        "chainlit_de-DE.md": "# Willkommen",
        "public/logo_dark.png": "a logo",
        "public/own.css": "a style",
        "data.txt": "data",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)


@pytest.fixture
def start(tmp_path: Path, folder: Path) -> Iterator[Start]:
    """Starts the instance by the command of the image, after it was made read-only or not."""
    made: list[Instance] = []

    def make(*, read_only: bool, options: tuple[str, ...] = ()) -> Instance:
        words = command(next(rest for word, rest in STEPS if word == "CMD" and "replica" in rest))
        begun = [*AS_USER, *COMMAND, *words[: words.index("--")], *options, "--"]
        (tmp_path / "temp").mkdir()
        env = {
            "TMPDIR": str(tmp_path / "temp"),
            "CHAINLIT_PROXY_SESSIONS": f"sqlite://{tmp_path}/sessions.db",
        }
        instance = Instance("one", tmp_path, "", command=begun, env=env, root="app", files=False)
        if read_only:
            for path in (folder, *folder.rglob("*")):
                path.chmod(path.stat().st_mode & ~0o222)
        made.append(instance)
        instance.launch()
        instance.wait_ready()
        return instance

    yield make
    for instance in made:
        instance.kill9()
        print(instance.tail())


def read(instance: Instance, path: str) -> str:
    """What the instance answers."""
    with urlopen(f"{instance.url}{path}", timeout=30) as answer:
        return str(answer.read().decode(errors="replace"))


def snapshot(folder: Path) -> set[str]:
    """What is in the folder, and below."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("read_only", [True, False], ids=["read-only", "writable"])
@pytest.mark.parametrize("named", [True, False], ids=["state", "temporary"])
def test_the_app_is_the_users(
    start: Start, folder: Path, tmp_path: Path, *, read_only: bool, named: bool
) -> None:
    """Title, timeout, welcome, translations and public files; nothing is written where it cannot be."""
    (folder / ".chainlit/config.toml").write_text(CONFIG)
    (folder / ".chainlit/translations/de-DE.json").write_text('{"own": "Eigenes"}')
    before = snapshot(folder)
    options = ("--state", str(tmp_path / "state")) if named else ()
    instance = start(read_only=read_only, options=options)
    assert re.findall(r"<title>(.*?)</title>", read(instance, "/")) == ["Our Bot"]
    assert "# Welcome" in read(instance, "/project/settings?language=en-US")
    assert "# Willkommen" in read(instance, "/project/settings?language=de-DE")
    assert "Eigenes" in read(instance, "/project/translations?language=de-DE")
    assert read(instance, "/public/own.css") == "a style"
    assert read(instance, "/logo?theme=dark") == "a logo"
    assert "seen 1234 data" in instance.tail(100)
    assert "stores []" in instance.tail(100), "the store may have a password: not for what the app starts"
    if read_only:
        assert snapshot(folder) == before
    assert instance.stop(signal.SIGTERM, timeout=30) == 0
    assert list((tmp_path / "temp").iterdir()) == []


def test_an_app_without_a_configuration(start: Start, folder: Path) -> None:
    """A read-only folder in which Chainlit finds nothing but the app: it has its defaults, elsewhere."""
    shutil.rmtree(folder / ".chainlit")
    (folder / "chainlit.md").unlink()
    instance = start(read_only=True)
    assert "Welcome to Chainlit" in read(instance, "/project/settings?language=en-US")
    assert not (folder / ".chainlit").exists()
