"""What holds for all tests."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# What a chat of the system tests asserts is told in full, as it is for a test.
pytest.register_assert_rewrite("tests.support")

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_sessionstart() -> None:
    """Nothing is tested if what runs is another build than the one that is to be tested."""
    if "EXPECTED_BUILD" not in os.environ:
        return
    from tests.support.expected_build import mistakes  # noqa: PLC0415 - it loads the package

    if found := mistakes(os.environ["EXPECTED_BUILD"]):
        pytest.exit("\n".join(found), returncode=3)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a compiled build cannot be given is not tested there."""
    if os.environ.get("EXPECTED_BUILD") == "compiled":
        for item in items:
            if item.get_closest_marker("interpreted"):
                item.add_marker(pytest.mark.skip(reason="takes the place of what is compiled"))


@pytest.fixture(autouse=True, scope="session")
def _no_state_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where a command keeps state for its user, that of the tests is apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
