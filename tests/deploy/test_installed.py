"""The wheel and the archive of sources, installed by pip in fresh environments, by `make images`.

One for each CPython from 3.11 on that is here (those of pyenv too), and for each extra.
"""

import asyncio
import functools
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deploy.test_release import build
from tests.docs.pages import ROOT
from tests.support.clients import Clients
from tests.support.instances import Fleet
from tests.support.link import COOKIE_KINDS
from tests.support.proxy_process import ProxyProcess, config_for

pytestmark = [
    pytest.mark.skipif(
        "IMAGES" not in os.environ, reason="installs into many environments, see `make images`"
    ),
    pytest.mark.system,
    pytest.mark.timeout(900),
]

OLDEST = (3, 11)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = [name for name in PROJECT["optional-dependencies"] if name != "dev"]
# What of ours is only imported where an extra is there.
OURS = """
import importlib, pkgutil, sys
import proxy
names = [m.name for m in pkgutil.walk_packages(proxy.__path__, "proxy.")]
missing = {}
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing[name] = error.name
print(missing)
"""


def pythons() -> list[str]:
    """The interpreter of this environment, and one of each later minor release that pyenv has."""
    found = {sys.version_info[:2]: sys.executable}
    for python in sorted(Path.home().glob(".pyenv/versions/3.*/bin/python3")):
        release = tuple(int(part) for part in re.findall(r"\d+", python.parts[-3])[:2])
        if release >= OLDEST and (python.parent / f"python{release[0]}.{release[1]}").exists():
            found.setdefault((release[0], release[1]), str(python))
    return [found[release] for release in sorted(found)]


PYTHONS = pythons()
PINNED = ("--quiet", "--constraint", str(ROOT / "constraints.txt"))


def pip(python: str | Path, *words: str) -> list[str]:
    """A command of our pip for an interpreter that may have none."""
    return [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", *words]


class Environment:
    """A fresh virtual environment with the package in it, and nothing of this checkout."""

    def __init__(self, python: str, folder: Path, what: str, *where: str) -> None:
        self._env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "CHAINLIT", "VIRTUAL_ENV"))
        }
        self.folder = folder
        self.program = str(folder / "bin/chainlit-proxy")
        self._done(python, "-m", "venv", "--without-pip", str(folder))
        self._done(*pip(folder / "bin/python", "install"), *PINNED, *where, what)
        self._done(*pip(folder / "bin/python", "check"))

    def _done(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.folder.parent, env=self._env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def run(self, *words: str) -> str:
        """What our command prints."""
        return self._done(self.program, *words)

    def python(self, program: str) -> str:
        """What a program prints."""
        return self._done(str(self.folder / "bin/python"), "-W", "error", "-c", program)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel and the archive of sources, freshly built."""
    folder = build(tmp_path_factory.mktemp("dist"), 0o22)
    return {kind: next(folder.glob(f"*{kind}")) for kind in (".whl", ".tar.gz")}


@pytest.fixture(scope="module")
def wheels(archives: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with all that the extras need on an interpreter; the index is asked for it once."""

    @functools.cache
    def fetched(python: str) -> Path:
        folder = tmp_path_factory.mktemp("wheels")
        what = f"{archives['.whl']}[{','.join(EXTRAS)}]"
        done = subprocess.run(
            pip(python, "wheel", *PINNED, "--wheel-dir", str(folder), what), capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        return folder

    return fetched


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two instances of Chainlit, of this environment."""
    with Fleet(tmp_path_factory.mktemp("fleet"), 2) as fleet:
        yield fleet


@pytest.mark.parametrize("kind", [".whl", ".tar.gz"])
@pytest.mark.parametrize("python", PYTHONS)
def test_it_is_installed_and_carries_a_chat(
    python: str, kind: str, archives: dict[str, Path], fleet: Fleet, tmp_path: Path
) -> None:
    """Without any extra: help and version, then chats of every kind of client through it."""
    fresh = Environment(python, tmp_path / "env", str(archives[kind]))
    assert "serve" in fresh.run("--help")
    assert "(interpreted)" in fresh.run("--version")
    assert fresh.python("import chainlit_proxy as c; print(c.on_restore(len) is len)") == "True\n"
    proxy = ProxyProcess(config_for(fleet.instances.values()), tmp_path)
    proxy.command[:3] = [fresh.program]
    proxy.cwd, proxy.env = tmp_path, {"PYTHONPATH": ""}
    try:
        proxy.start()

        async def scenario() -> None:
            async with Clients(proxy.url) as clients:
                for chat in await clients.open_many(COOKIE_KINDS):
                    await chat.check(fleet.journal)

        asyncio.run(scenario())
        assert proxy.stop() == 0, proxy.tail()
    finally:
        proxy.kill9()


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("python", PYTHONS)
def test_an_extra_is_enough_for_what_it_is_for(
    python: str, extra: str, archives: dict[str, Path], wheels: Callable[[str], Path], tmp_path: Path
) -> None:
    """Each is installed alone without conflicts, and no module of ours lacks what it names."""
    what = f"{archives['.whl']}[{extra}]"
    fresh = Environment(python, tmp_path / "env", what, "--no-index", "--find-links", str(wheels(python)))
    assert "serve" in fresh.run("--help")
    missing = fresh.python(OURS)
    names = [
        re.split(r"[<>=\[ ]", need)[0].replace("-", "_") for need in PROJECT["optional-dependencies"][extra]
    ]
    assert not [name for name in names if f"'{name}'" in missing], missing
