"""Words that several parts have in common."""

from proxy.words import no_backend


def test_a_backend_that_there_is_not() -> None:
    """The names that there are follow, of a large fleet the first twenty."""
    assert no_backend("x", []) == "there is no backend 'x'; there are: none"
    assert no_backend("x", ["a", "b"]) == "there is no backend 'x'; there are: a, b"
    assert no_backend("x", ["a"], left=True) == "there is no backend 'x' any more; there are: a"
    many = no_backend("x", [f"chat-{number}" for number in range(200)])
    assert many.endswith("chat-18, chat-19 and 180 more")
