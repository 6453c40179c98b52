"""Which modules are compiled, and that they are such as can be."""

import ast
from functools import cache
from pathlib import Path

import pytest

import hatch_build
from tests.docs.pages import ROOT

MODULES = hatch_build.compiled_modules(ROOT)
ALL = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted((ROOT / "proxy").rglob("*.py"))
}


@cache
def tree(module: str) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(ALL[module].read_text(encoding="utf-8"))


def classes(module: str) -> list[ast.ClassDef]:
    """The classes of a module."""
    return [node for node in ast.walk(tree(module)) if isinstance(node, ast.ClassDef)]


def test_the_list_is_derived() -> None:
    """All of the hot packages that has no coroutine is compiled, and nothing else but what is named."""
    hot = {
        name
        for name, path in ALL.items()
        if path.name != "__init__.py" and str(path.relative_to(ROOT)).startswith(hatch_build.HOT)
    }
    with_coroutines = {name for name in hot if hatch_build.coroutines(ALL[name].read_text(encoding="utf-8"))}
    assert MODULES.keys() == hot - (with_coroutines - hatch_build.DESPITE_COROUTINES.keys()) - (
        hatch_build.INTERPRETED.keys()
    )
    assert hatch_build.DESPITE_COROUTINES.keys() <= with_coroutines
    assert hatch_build.INTERPRETED.keys() <= hot - with_coroutines


def test_every_exception_has_its_reason() -> None:
    """Whoever adds one to the list says why."""
    reasons = [*hatch_build.DESPITE_COROUTINES.values(), *hatch_build.INTERPRETED.values()]
    assert all(len(reason.split()) > 3 for reason in reasons)


def test_what_requests_pass_through_is_compiled() -> None:
    """The list is not empty by a mistake: what each request needs is in it, and what is not hot is not."""
    for name in ("wire.head", "wire.fields", "affinity.router", "dataplane.downstream", "logs"):
        assert f"proxy.{name}" in MODULES
    for name in ("errors", "dataplane.shared_directory", "dataplane.leaving", "app"):
        assert f"proxy.{name}" not in MODULES


def test_the_package_knows_one_of_them() -> None:
    """`proxy/build.py` looks at a module that is compiled."""
    assert hatch_build.compiled_modules(ROOT).get("proxy.wire.head") == Path("proxy/wire/head.py")


@pytest.mark.parametrize("module", MODULES)
def test_exceptions_have_no_attributes_of_their_class(module: str) -> None:
    """Compiled, such an attribute is never set: those with one are in `proxy/errors.py`."""
    errors = {each.name: each for each in classes("proxy.errors")}
    for each in classes(module):
        bases = {ast.unparse(base) for base in each.bases}
        if bases & {"Exception", "BaseException", *errors} or any(b.endswith("Error") for b in bases):
            assert not [node for node in each.body if isinstance(node, (ast.Assign, ast.AnnAssign))], (
                each.name
            )
            assert not bases & errors.keys(), f"{each.name} belongs to the tree in proxy/errors.py"


@pytest.mark.parametrize("module", sorted(ALL.keys() - MODULES.keys()))
def test_nothing_is_derived_from_what_is_compiled(module: str) -> None:
    """A class that is not compiled cannot have one for its base that is."""
    compiled: dict[str, str] = {}
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            compiled |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    interpreted_kinds = {"StrEnum", "Enum"}
    for each in classes(module):
        for base in each.bases:
            name = ast.unparse(base)
            assert name not in compiled or name in interpreted_kinds, f"{each.name}({name})"


@cache
def protocols() -> set[str]:
    """The names of all classes that are a `Protocol`."""
    return {
        each.name
        for module in ALL
        for each in classes(module)
        if any(ast.unparse(base).partition("[")[0] == "Protocol" for base in each.bases)
    }


@pytest.mark.parametrize("module", MODULES)
def test_defaults_are_such_as_are_set(module: str) -> None:
    """Compiled, a default of a class is a constant, and None is left out where a Protocol may be."""
    kinds = {"Protocol", "NamedTuple", "Enum", "StrEnum"}
    for each in classes(module):
        if kinds & {ast.unparse(base) for base in each.bases} or each.decorator_list:
            continue
        for node in each.body:
            if isinstance(node, ast.AnnAssign) and node.value is not None:
                told = f"{each.name}: {ast.unparse(node)}"
                assert not isinstance(node.value, (ast.Call, ast.Attribute)), told
                is_none = isinstance(node.value, ast.Constant) and node.value.value is None
                assert not (is_none and set(ast.unparse(node.annotation).split(" | ")) & protocols()), told


def test_protocols_are_found() -> None:
    """The test above is not empty."""
    assert {"Rewriter", "Framer", "Client"} <= protocols()
