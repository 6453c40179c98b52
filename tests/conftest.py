"""What holds for all tests."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

# What a chat of the system tests asserts is told in full, as it is for a test.
pytest.register_assert_rewrite("tests.support")

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True, scope="session")
def _no_state_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where a command keeps state for its user, that of the tests is apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
