"""`chainlit_proxy`, the name that apps import: light, and one with what the launcher loads."""

import ast
import importlib.util
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import chainlit_proxy
from proxy import __version__, sessions
from proxy.sessions.codecs import CODECS
from tests.docs.pages import ROOT

OURS = Path(chainlit_proxy.__file__)


def told(program: str, folder: Path) -> list[str]:
    """What a program prints that is run in a folder, whose modules it finds first, as an app's."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[1:1] = [{str(ROOT)!r}]\n{program}"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_it_stands_alone() -> None:
    """It imports the standard library only, for types neither: an app's own `proxy` is nothing to it."""
    imported = {
        name
        for node in ast.walk(ast.parse(OURS.read_text(encoding="utf-8")))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
        )
    }
    assert imported
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


def test_its_names_are_those_of_the_pages() -> None:
    """All that the pages import is there and public, and all that is public is on a page."""
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    told_names = {
        alias.name
        for line in pages.splitlines()
        if line.startswith("from chainlit_proxy import ")
        for node in ast.walk(ast.parse(line))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told_names == set(chainlit_proxy.__all__)
    assert "from proxy" not in pages
    assert "import proxy" not in pages


@pytest.mark.parametrize("name", chainlit_proxy.__all__)
def test_arguments_are_those_of_the_implementation(name: str) -> None:
    """Each takes what it passes on, with the same defaults, and says what it is for."""
    ours, theirs = getattr(chainlit_proxy, name), getattr(sessions, name)
    described = [
        [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]
        for function in (ours, theirs)
    ]
    assert described[0] == described[1]
    assert inspect.getdoc(ours)


def test_importing_it_loads_nothing(tmp_path: Path) -> None:
    """Neither the proxy nor its dependencies; what is asked of it loads the part for apps and no more."""
    heavy = "'proxy', 'chainlit', 'aiohttp', 'pydantic', 'socketio', 'uvloop', 'redis'"
    program = (
        f"import chainlit_proxy\nprint([name for name in ({heavy}) if name in sys.modules])\n"
        "@chainlit_proxy.on_restore\nasync def restored(): ...\n"
        "chainlit_proxy.register_codec(type('Basket', (), {}), vars, print)\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'proxy'])\n"
        "print('_chainlit_proxy_sessions' in sys.modules, inspect.iscoroutinefunction(restored))"
    )
    assert told(f"import inspect\n{program}", tmp_path) == ["[]", "[]", "True True"]


@pytest.mark.parametrize("own", ["proxy.py", "proxy/__init__.py"])
def test_an_app_may_have_a_proxy_of_its_own(tmp_path: Path, own: str) -> None:
    """That one is the app's, and these names work beside it."""
    (tmp_path / own).parent.mkdir(exist_ok=True)
    (tmp_path / own).write_text("NAME = 'the app'")
    program = "import proxy, chainlit_proxy\nprint(proxy.NAME, chainlit_proxy.on_restore(print) is print)"
    assert told(program, tmp_path) == ["the app True"]


@pytest.mark.parametrize("own", ["proxy.py", "proxy/__init__.py"])
def test_the_command_is_ours(tmp_path: Path, own: str) -> None:
    """Though an image puts the app's folder on the import path, by PYTHONPATH for instance."""
    (tmp_path / own).parent.mkdir(exist_ok=True)
    (tmp_path / own).write_text("raise SystemExit('the app')")
    program = "import sys; sys.argv[1:] = ['--version']\nfrom chainlit_proxy.__main__ import main\nmain()"
    assert told(program, tmp_path)[0].startswith(f"chainlit-proxy, version {__version__} ")
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts == {"chainlit-proxy": "chainlit_proxy.__main__:main"}


def test_it_is_one_with_what_the_launcher_loads(tmp_path: Path) -> None:
    """Whoever is first has it loaded; what the app registers reaches who shares, by the older name too."""
    launcher = ROOT / "proxy/replicas/launch.py"
    load = (
        "import importlib.util as u\n"
        f"spec = u.spec_from_file_location('launch', {str(launcher)!r})\n"
        "launch = u.module_from_spec(spec); spec.loader.exec_module(launch)\n"
    )
    app = "import chainlit_proxy\nchainlit_proxy.register_codec(type('Basket', (), {}), vars, print)\n"
    older = "from proxy.sessions import register_codec\nregister_codec(type('Tally', (), {}), vars, print)\n"
    last = "print(launch.load_sessions() is first, [n in repr(first.CODECS) for n in ('Basket', 'Tally')])"
    first = "first = launch.load_sessions()\n"
    assert told(load + first + app + older + last, tmp_path) == ["True [True, True]"]
    assert told(load + app + first + older + last, tmp_path) == ["True [True, True]"]


def test_what_runs_at_restores_may_be_told_before_sessions_are_shared(tmp_path: Path) -> None:
    """As by a module that is imported at the app's top, above `share`; a second `share` adds nothing."""
    program = (
        "from chainlit_proxy import on_restore, share\n"
        "@on_restore\nasync def above(): ...\n"
        f"shared = [share('sqlite://{tmp_path}/sessions.db') for _ in range(2)]\n"
        "@on_restore\nasync def below(): ...\n"
        "import sys; hooks = sys.modules['_chainlit_proxy_sessions']._hooks()\n"
        "print(shared, [each.__name__ for each in hooks.on_restore])"
    )
    assert told(program, tmp_path)[-1] == "[True, True] ['above', 'below']"


@pytest.mark.parametrize("limit", ["most_answers", "most_waiting"])
def test_limits_of_answers_are_none_or_some(limit: str) -> None:
    """With less than none no message was ever answered."""
    with pytest.raises(ValueError, match="must be 0 or greater"):
        chainlit_proxy.share("redis://127.0.0.1:1", **{limit: -1})  # type: ignore[arg-type]


def test_the_app_may_have_a_module_of_this_name_too(tmp_path: Path) -> None:
    """The launcher does not take it from an app that had it before."""
    (tmp_path / "chainlit_proxy.py").write_text("NAME = 'the app'")
    program = (
        "import importlib.util as u\n"
        f"spec = u.spec_from_file_location('launch', {str(ROOT / 'proxy/replicas/launch.py')!r})\n"
        "launch = u.module_from_spec(spec); spec.loader.exec_module(launch)\n"
        "launch.load_sessions()\nimport chainlit_proxy\nprint(chainlit_proxy.NAME)"
    )
    assert told(program, tmp_path) == ["the app"]


def test_what_was_stored_knows_no_module() -> None:
    """The name of a type is stored, not where it or the codec was imported from: older states are read."""

    class Basket:
        def __init__(self, items: list[str]) -> None:
            self.items = items

    CODECS.register(Basket, lambda basket: basket.items, Basket)
    stored = CODECS.encode(Basket(["a"]))
    name = f"{test_what_was_stored_knows_no_module.__name__}.<locals>.Basket"
    assert stored == {"$type": name, "$value": ["a"]}
    assert CODECS.decode(stored).items == ["a"]


def test_a_half_loaded_one_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    """What fails is raised each time, as any failed import."""
    copy = tmp_path / "chainlit_proxy" / "__init__.py"
    copy.parent.mkdir()
    copy.write_text(OURS.read_text(encoding="utf-8"), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("copied", copy)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    before = sys.modules.pop("_chainlit_proxy_sessions", None)
    try:
        for _ in range(2):
            with pytest.raises(FileNotFoundError):
                module.on_restore(print)
        assert "_chainlit_proxy_sessions" not in sys.modules
    finally:
        if before is not None:
            sys.modules["_chainlit_proxy_sessions"] = before
