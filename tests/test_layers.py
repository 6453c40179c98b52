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
        "proxy.backoff",
        "proxy.borders",
        "proxy.build",
        "proxy.errors",
        "proxy.config",
        "proxy.names",
        "proxy.steering",
        "proxy.tls",
        "proxy.units",
        "proxy.sessions",
        "proxy.words",
    },
    {"proxy.wire"},
    {"proxy.affinity"},
    {"proxy.dataplane", "proxy.controlplane", "proxy.replicas", "proxy.doctor", "proxy.load"},
    {
        "proxy.admin_listener",
        "proxy.app",
        "proxy.changes",
        "proxy.exchange_log",
        "proxy.exposition",
        "proxy.figures",
        "proxy.local_replicas",
        "proxy.logs",
        "proxy.metric_families",
        "proxy.metrics",
        "proxy.output",
        "proxy.parts",
        "proxy.ports",
        "proxy.probe_times",
        "proxy.scrape",
        "proxy.service_manager",
        "proxy.tracing",
    },
    {"proxy.cli", "proxy.__main__"},
]
# Runs in an app's process, loaded under another name: it knows nothing of the rest, and imports relatively.
APART = "proxy.sessions"
# The only place that opens sockets, and who may ask it to.
NET = "proxy.net"
MAY_USE_NET = {"proxy.dataplane", "proxy.controlplane", "proxy.replicas", "proxy.app", "proxy.cli",
               "proxy.ports"}  # fmt: skip
NET_MAY_USE = {"proxy.errors", "proxy.config", "proxy.names", "proxy.steering", "proxy.tls"}
# Parts of one layer that know nothing of each other: `app` hands each what it needs.
STRANGERS = [{"proxy.dataplane", "proxy.controlplane"}, {"proxy.doctor", "proxy.dataplane"}]
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


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules that a tree imports, for types and inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # Only one package imports relatively, and lies in one folder.
            module = node.module if node.level == 0 else ".".join(filter(None, (APART, node.module)))
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield inner if inner in MODULES else str(module)


def imported(module: str) -> set[str]:
    """What a module imports."""
    return set(imports(ast.parse(MODULES[module].read_text())))


def of_the_house(module: str) -> set[str]:
    """What a module imports of this package."""
    return {name for name in imported(module) if name.split(".")[0] == "proxy"}


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


def test_nobody_needs_the_app() -> None:
    """The composition root is imported by the command line only."""
    assert {part(module) for module in MODULES if "proxy.app" in imported(module)} == {"proxy.cli"}


@pytest.mark.parametrize("module", MODULES)
def test_strangers_stay_strangers(module: str) -> None:
    """The data plane and the control plane never import each other."""
    for strangers in STRANGERS:
        if part(module) in strangers:
            assert not {name for name in of_the_house(module) if part(name) in strangers - {part(module)}}


@pytest.mark.parametrize("module", [module for module in MODULES if part(module) == "proxy.load"])
def test_load_comes_from_outside(module: str) -> None:
    """Simulated users know nothing of this proxy, which is one of those that they may be sent to."""
    assert {part(name) for name in of_the_house(module)} <= {"proxy.load"}


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


def circles(needs: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules that need each other, of two and more."""
    reach = {module: set(others) & needs.keys() for module, others in needs.items()}
    while True:
        more = {module: found.union(*(reach[other] for other in found)) for module, found in reach.items()}
        if more == reach:
            break
        reach = more
    rings = {frozenset(other for other in found if module in reach[other]) for module, found in reach.items()}
    return [set(ring) for ring in rings if len(ring) > 1]


def test_no_module_needs_itself() -> None:
    """No circle between modules, those of types and inside functions counted."""
    needs = {module: of_the_house(module) - {module} for module in MODULES}
    assert circles(needs) == []


def test_circles_are_found() -> None:
    """The test above is not empty: a circle of any length is seen, a chain is none."""
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("module", [module for module in MODULES if part(module) == "proxy.dataplane"])
def test_the_data_plane_takes_interfaces(module: str) -> None:
    """No file takes what another one keeps to itself."""
    taken = {
        f"{ast.unparse(node)} in line {node.lineno}"
        for node in ast.walk(ast.parse(MODULES[module].read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and node.attr != "_replace"  # of named tuples
        and not (isinstance(node.value, ast.Name) and node.value.id == "self")
    }
    assert not taken


def test_the_walk_sees_imports() -> None:
    """The tests above are not empty: known imports are found."""
    assert "proxy.wire.fields" in of_the_house("proxy.wire.head")
    assert "proxy.wire.reply" in of_the_house("proxy.dataplane.downstream")
    assert "proxy.dataplane.site" in of_the_house("proxy.dataplane.downstream")
    assert "proxy.dataplane.plane" not in of_the_house("proxy.dataplane.downstream")
    assert "asyncio" in imported("proxy.dataplane.downstream")
    assert len(MODULES) > 40
