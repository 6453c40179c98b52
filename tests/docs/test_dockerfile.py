"""The Dockerfile, as far as it can be checked without building it."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.docs.pages import ROOT, admin_of
from tests.docs.test_commands import parse

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
STEPS = [
    (word, rest.strip()) for word, _, rest in (line.strip().partition(" ") for line in TEXT.splitlines())
]


def step(word: str) -> str:
    """The last step of a kind: that of the image that runs."""
    return [rest for found, rest in STEPS if found == word][-1]


def command(text: str) -> list[str]:
    """A command in its JSON form, which needs no shell."""
    words = json.loads(text)
    assert isinstance(words, list)
    return words


def test_everything_that_is_copied_exists() -> None:
    """What the build copies is in the repository, and the ignore file lets it through."""
    let_through = set(
        re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    )
    copied = {
        source
        for word, rest in STEPS
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert copied
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert copied == let_through


def test_the_build_has_what_the_package_names() -> None:
    """The files that the build backend reads are among those that are copied."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    copies = " ".join(rest for word, rest in STEPS if word == "COPY")
    assert all(name in copies for name in [project["readme"], *project["license-files"], "constraints.txt"])


def test_what_is_copied_is_enough_to_build(tmp_path: Path) -> None:
    """With these files alone the package is built as pip builds it, the page and the scripts in it."""
    for word, rest in STEPS:
        if word == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                target = tmp_path / source
                target.parent.mkdir(parents=True, exist_ok=True)
                copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copyfile
                copy(ROOT / source, target)
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "dist").glob("*.whl"))


def test_it_runs_the_proxy_and_not_as_root() -> None:
    """Entry point and command are a command line of ours; the user is a number other than 0."""
    words = command(step("ENTRYPOINT")) + command(step("CMD"))
    assert words[0] == "chainlit-proxy"
    parse(words[1:])
    assert int(step("USER").split(":")[0]) > 0


def test_the_health_check_asks_what_is_served() -> None:
    """Its program is valid, and its path is one of the admin listener that needs no token."""
    words = command(step("HEALTHCHECK").partition("CMD")[2])
    assert words[:2] == ["python", "-c"]
    compile(words[2], "healthcheck", "exec")
    (path,) = re.findall(r"'(/\w+)'", words[2])
    app = admin_of("token")
    (route,) = [route for route in app.routes if getattr(route, "path", None) == path]
    assert not getattr(route, "dependencies", None)
