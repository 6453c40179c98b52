"""Imports go in one direction only: the layers of the house, walked by their syntax trees."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import proxy

ROOT = Path(proxy.__file__).parent

# Layers from the bottom up; a module may import from its own layer and from those below it.
LAYERS = [
    {
        "proxy",
        "proxy.borders",
        "proxy.errors",
        "proxy.config",
        "proxy.names",
        "proxy.tls",
        "proxy.sessions",
    },
    {"proxy.wire"},
    {"proxy.affinity"},
    {"proxy.dataplane", "proxy.controlplane", "proxy.replicas"},
    {
        "proxy.app",
        "proxy.changes",
        "proxy.exposition",
        "proxy.members",
        "proxy.metrics",
        "proxy.output",
        "proxy.logs",
        "proxy.reload",
        "proxy.rollout",
        "proxy.scrape",
        "proxy.tracing",
    },
    {"proxy.cli", "proxy.__main__"},
]
# Runs in an app's process, loaded under another name: it knows nothing of the rest, and imports relatively.
APART = "proxy.sessions"
# The only place that opens sockets, and who may ask it to.
NET = "proxy.net"
MAY_USE_NET = {"proxy.dataplane", "proxy.controlplane", "proxy.replicas", "proxy.app", "proxy.cli",
               "proxy.reload"}  # fmt: skip
NET_MAY_USE = {"proxy.errors", "proxy.config", "proxy.names", "proxy.tls"}
# Parts of one layer that know nothing of each other: `app` hands each what it needs.
STRANGERS = [{"proxy.dataplane", "proxy.controlplane"}]
# What the pure layers must not touch: `now`, randomness and every effect are arguments.
IMPURE = {"asyncio", "socket", "select", "selectors", "ssl", "threading", "subprocess", "time", "datetime",
          "random", "secrets", "logging", "os", "io", "uvloop", "aiohttp"}  # fmt: skip
PURE = {"proxy.wire", "proxy.affinity"}


def modules() -> dict[str, Path]:
    """Every module of the package by its name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def part(module: str) -> str:
    """The part of the house that a module belongs to: `proxy.wire.head` is of `proxy.wire`."""
    return ".".join(module.split(".")[:2])


def layer(module: str) -> int:
    """The number of a module's layer."""
    return next(at for at, parts in enumerate(LAYERS) if part(module) in parts)


def imports(tree: ast.AST, *, for_types: bool) -> Iterator[str]:
    """The modules that a tree imports; without `for_types` not those of `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            if for_types:
                yield from imports(node, for_types=True)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # Only one package imports relatively, and lies in one folder.
            module = node.module if node.level == 0 else ".".join(filter(None, (APART, node.module)))
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield inner if inner in MODULES else str(module)
        else:
            yield from imports(node, for_types=for_types)


def imported(module: str, *, for_types: bool = True) -> set[str]:
    """What a module imports."""
    return set(imports(ast.parse(MODULES[module].read_text()), for_types=for_types))


def of_the_house(module: str, *, for_types: bool = True) -> set[str]:
    """What a module imports of this package."""
    return {name for name in imported(module, for_types=for_types) if name.split(".")[0] == "proxy"}


def test_every_module_has_a_layer() -> None:
    """A new part of the house is given its place here first."""
    parts = set().union(*LAYERS) | {NET}
    assert {part(module) for module in MODULES} == parts


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    """No module imports from a layer above its own, not even for types."""
    if part(module) == NET:
        wrong = {name for name in of_the_house(module) if part(name) not in NET_MAY_USE}
    else:
        wrong = {
            name
            for name in of_the_house(module)
            if (part(module) not in MAY_USE_NET if part(name) == NET else layer(name) > layer(module))
        }
    assert not wrong


@pytest.mark.parametrize("module", MODULES)
def test_strangers_stay_strangers(module: str) -> None:
    """The data plane and the control plane never import each other."""
    for strangers in STRANGERS:
        if part(module) in strangers:
            assert not {name for name in of_the_house(module) if part(name) in strangers - {part(module)}}


@pytest.mark.parametrize("module", MODULES)
def test_only_who_is_apart_imports_relatively(module: str) -> None:
    """`sessions` never says the name of the package, and imports nothing else of it; the others do."""
    nodes = ast.walk(ast.parse(MODULES[module].read_text()))
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    if part(module) == APART:
        assert {part(name) for name in of_the_house(module)} <= {APART}
        assert all(node.level == 1 or str(node.module).split(".")[0] != "proxy" for node in froms)
    else:
        assert all(node.level == 0 for node in froms)


@pytest.mark.parametrize("module", [module for module in MODULES if part(module) in PURE])
def test_the_pure_layers_are_pure(module: str) -> None:
    """`wire` and `affinity` know no event loop, socket, clock, chance or log."""
    assert not {name.split(".")[0] for name in imported(module)} & IMPURE


def test_no_module_needs_itself() -> None:
    """No cycle between modules when they are loaded; what is only for types may look back."""
    needs = {module: of_the_house(module, for_types=False) - {module} for module in MODULES}
    while free := [module for module, others in needs.items() if not others & needs.keys()]:
        for module in free:
            del needs[module]
    assert not needs, f"among these is a cycle: {sorted(needs)}"


def test_the_walk_sees_imports() -> None:
    """The tests above are not empty: known imports are found, types among them only when asked for."""
    assert "proxy.wire.fields" in of_the_house("proxy.wire.head")
    assert "proxy.wire.reply" in of_the_house("proxy.dataplane.downstream")
    assert "proxy.dataplane.plane" in of_the_house("proxy.dataplane.downstream")
    assert "proxy.dataplane.plane" not in of_the_house("proxy.dataplane.downstream", for_types=False)
    assert "asyncio" in imported("proxy.dataplane.downstream")
    assert len(MODULES) > 40
