"""What holds for all tests."""

import pytest
from hypothesis import settings

# What a chat of the system tests asserts is told in full, as it is for a test.
pytest.register_assert_rewrite("tests.support")

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
