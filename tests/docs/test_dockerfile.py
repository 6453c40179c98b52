"""The Dockerfile, as far as it can be checked without building it."""

import json
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from hatch_build import SWITCH
from proxy.build import Build
from tests.docs.pages import ROOT, admin_of
from tests.docs.test_commands import parse

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
STEPS = [
    (word, rest.strip()) for word, _, rest in (line.strip().partition(" ") for line in TEXT.splitlines())
]

# The users and groups of Debian's base-passwd. Others get numbers from 1000 to 59999: adduser.conf(5).
OF_DEBIAN = {
    *(
        "root",
        "daemon",
        "bin",
        "sys",
        "sync",
        "games",
        "man",
        "lp",
        "mail",
        "news",
        "uucp",
        "proxy",
        "www-data",
    ),
    *(
        "backup",
        "list",
        "irc",
        "gnats",
        "_apt",
        "nobody",
        "adm",
        "tty",
        "disk",
        "kmem",
        "dialout",
        "fax",
        "voice",
    ),
    *(
        "cdrom",
        "floppy",
        "tape",
        "sudo",
        "audio",
        "dip",
        "operator",
        "src",
        "shadow",
        "utmp",
        "video",
        "sasl",
    ),
    *("plugdev", "staff", "users", "nogroup"),
}
LAST_OF_DEBIAN, NOBODY = 999, 59999


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


def test_no_image_has_what_compiles() -> None:
    """Both images are made of the base, and what the argument asks for is in one stage, with a default."""
    named = {words[2]: words[0] for words in (rest.split() for word, rest in STEPS if word == "FROM")}
    assert {named["proxy"], named["chat"]} == {"base"}
    stage, switching = "", []
    for word, rest in STEPS:
        stage = rest if word == "FROM" else stage
        if word in {"ARG", "ENV", "RUN"} and re.search(rf"{SWITCH}|\bBUILD\b|gcc", rest):
            switching.append((stage, word))
    assert switching == [("sources AS build", "ARG"), *[("sources AS build", "RUN")] * 2]
    assert ("ARG", "BUILD=compiled") in STEPS


def test_no_stage_is_named_by_an_argument() -> None:
    """Buildah, and Podman with it, leaves out a stage that only the default of an argument names."""
    assert [rest for word, rest in STEPS if word == "FROM" and "$" in rest] == []


@pytest.mark.parametrize("build", ["interpreted", "compield", ""])
def test_a_build_that_is_none_is_refused(build: str) -> None:
    """With what there is."""
    (step,) = [rest for word, rest in STEPS if word == "RUN" and rest.startswith("case ")]
    choice, esac, _ = step.partition("esac")
    done = subprocess.run(
        ["sh", "-c", choice + esac],
        env={"BUILD": build},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    told = f"BUILD is '{build}'; it can be {' or '.join(sorted(kind.value for kind in Build))}\n"
    assert (done.returncode, done.stderr) == ((0, "") if build in set(Build) else (2, told))


def test_the_user_may_read_what_is_copied() -> None:
    """Files keep the mode that the checkout gave them, which a umask of 077 has for their owner alone."""
    stages: list[list[tuple[str, str]]] = []
    for word, rest in STEPS:
        if word == "FROM":
            stages.append([])
        elif stages:
            stages[-1].append((word, rest))
    copied = 0
    for steps in stages:
        for number, (word, rest) in enumerate(steps):
            after = [word for word, _ in steps[number:]]
            if word == "COPY" and not rest.startswith("--from") and "USER" in after:
                folder = rest.split()[-1].rpartition("/")[0]
                until = steps[number : number + after.index("USER")]
                assert ("RUN", f"chmod -R a+rX {folder}") in until
                copied += 1
    assert copied == 1


def test_it_runs_the_proxy_and_not_as_root() -> None:
    """Entry point and command are a command line of ours; the user is a number other than 0."""
    words = command(step("ENTRYPOINT")) + command(step("CMD"))
    assert words[0] == "chainlit-proxy"
    parse(words[1:])
    assert int(step("USER").split(":")[0]) > 0


def test_the_user_is_new() -> None:
    """Debian has not got it: neither its name nor its number nor those of its group."""
    made = {rest for word, rest in STEPS if word == "RUN" and "useradd" in rest}
    (line,) = made
    (user,) = re.findall(r"useradd .*?(\S+)\s+&&", line)
    (group,) = re.findall(r"groupadd --gid \d+ (\S+)", line)
    numbers = {int(number) for number in re.findall(r"--[ug]id (\d+)", line)}
    assert not {user, group} & OF_DEBIAN
    assert {str(number) for number in numbers} == set(step("USER").split(":"))
    assert min(numbers) > LAST_OF_DEBIAN
    assert max(numbers) < NOBODY


def test_the_names_of_debian_are_known() -> None:
    """On Debian itself: the list here has all that its package brings."""
    files = [Path(f"/usr/share/base-passwd/{name}.master") for name in ("passwd", "group")]
    if not all(file.exists() for file in files):
        pytest.skip("not on Debian")
    assert {line.partition(":")[0] for file in files for line in file.read_text().splitlines()} <= OF_DEBIAN


class Answers(BaseHTTPRequestHandler):
    """Answers everything with a status."""

    status = 200

    def do_GET(self) -> None:
        """As told."""
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("check", [rest for word, rest in STEPS if word == "HEALTHCHECK"])
def test_the_health_check_asks_nobody_else(check: str) -> None:
    """A proxy that `http_proxy` names is not asked: 200 is well, anything else is not."""
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        program = re.sub(r"http://127\.0\.0\.1:\d+", url, command(check.partition("CMD")[2])[2])
        environment = {"CHAINLIT_PROXY_ADMIN": url, "http_proxy": "http://127.0.0.1:1"}
        ended = []
        for Answers.status in (200, 503):
            ended.append(
                subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode
            )
        server.shutdown()
    assert ended == [0, 1]


def test_the_health_check_asks_what_is_served() -> None:
    """Its program is valid, and its path is one of the admin listener that needs no token."""
    words = command(step("HEALTHCHECK").partition("CMD")[2])
    assert words[:2] == ["python", "-c"]
    compile(words[2], "healthcheck", "exec")
    (path,) = re.findall(r"'(/\w+)'", words[2])
    app = admin_of("token")
    (route,) = [route for route in app.routes if getattr(route, "path", None) == path]
    assert not getattr(route, "dependencies", None)
