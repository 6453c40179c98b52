"""Words that the log, the events, the API and the commands have in common: one fact, one sentence."""

from collections.abc import Sequence

_FEW = 20  # names that are told of a large fleet


def counted(number: int, noun: str) -> str:
    """Such as `1 session` or `2 sessions`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def no_backend(name: str, there: Sequence[str], *, left: bool = False) -> str:
    """What somebody hears who has named a backend that there is not, or no more if it has `left`."""
    shown = ", ".join(there[:_FEW]) or "none"
    more = f" and {len(there) - _FEW} more" if len(there) > _FEW else ""
    return f"there is no backend {name!r}{' any more' if left else ''}; there are: {shown}{more}"


def drained(sent_away: int, forced: int) -> str:
    """How a drain ended, behind the backend's name: `forced` sessions had not finished at its deadline."""
    cut = f", {forced} of them in the middle of an answer" if forced else ""
    return f"is drained: {counted(sent_away + forced, 'session')} moved{cut}"
