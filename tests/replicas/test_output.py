"""From a replica's bytes to prefixed lines."""

import pytest

from proxy.replicas.output import LAST_LINES, MAX_HELD, LineSplitter, ReplicaLog

TEXT = "one\r\n\ntwo äöü\nthree".encode()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_lines_do_not_depend_on_the_pieces(size: int) -> None:
    """However the bytes arrive, also within a character, the lines are the same."""
    splitter = LineSplitter()
    lines = [line for at in range(0, len(TEXT), size) for line in splitter.feed(TEXT[at : at + size])]
    assert lines == ["one", "", "two äöü"]
    assert list(splitter.flush()) == ["three"]
    assert list(splitter.flush()) == []


def test_very_long_line_comes_in_pieces() -> None:
    """A line without end is passed on in pieces of the limit, and nothing of it is lost."""
    splitter = LineSplitter(max_line=10)
    lines = [line for _ in range(5) for line in splitter.feed(b"abcdefg")]
    lines += splitter.feed(b"\nnext\n")
    assert [len(line) for line in lines] == [10, 10, 10, 5, 4]
    assert "".join(lines) == "abcdefg" * 5 + "next"


def test_bytes_that_are_no_text_do_not_break_it() -> None:
    """What is no UTF-8 is replaced."""
    assert list(LineSplitter().feed(b"a\xff\xfeb\n")) == ["a��b"]


def test_lines_are_prefixed_and_the_last_kept() -> None:
    """Each line gets the prefix; the last ones are remembered without it."""
    out: list[str] = []
    log = ReplicaLog("r | ", out.append)
    for number in range(50):
        log.write(str(number))
    assert out[:2] == ["r | 0", "r | 1"]
    assert log.last == tuple(str(number) for number in range(50 - LAST_LINES, 50))


def test_held_lines_come_when_released() -> None:
    """What is held back is passed on in order at the release, and later lines at once."""
    out: list[str] = []
    log = ReplicaLog("", out.append, held=True)
    log.write("a")
    log.write("b")
    assert out == []
    log.release()
    log.write("c")
    assert out == ["a", "b", "c"]


def test_held_lines_are_bounded() -> None:
    """Of a talkative replica only the newest lines are held."""
    out: list[str] = []
    log = ReplicaLog("", out.append, held=True)
    for number in range(MAX_HELD + 5):
        log.write(str(number))
    log.release()
    assert (len(out), out[0]) == (MAX_HELD, "5")


def test_muted_log_passes_nothing_on() -> None:
    """After `mute` neither new lines nor held ones are passed on."""
    out: list[str] = []
    log = ReplicaLog("", out.append, held=True)
    log.write("a")
    log.mute()
    log.release()
    log.write("b")
    assert out == []
