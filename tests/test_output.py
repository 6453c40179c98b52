"""The streams of a serving process: a reader that stops or leaves and a full disk cost lines, no more."""

import fcntl
import os
import subprocess
import sys
import termios
import threading
import time
from array import array
from pathlib import Path

import pytest

from proxy.output import Output
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[1]
PIPE = 1 << 16  # bytes that a pipe holds


class Reader:
    """The other end of an output; it reads when it is told to."""

    def __init__(self) -> None:
        self.end, self.descriptor = os.pipe()

    def read(self, until: bytes) -> bytes:
        """What comes, up to a text."""
        data = b""
        while until not in data:
            data += os.read(self.end, 1 << 20)
        return data

    def waiting(self) -> int:
        """How many bytes could be read."""
        count = array("i", [0])
        fcntl.ioctl(self.end, termios.FIONREAD, count)
        return count[0]

    def close(self) -> None:
        """Go away."""
        os.close(self.end)


@pytest.fixture
def reader() -> Reader:
    """A reader that has not begun to read; its descriptors stay open as long as a thread may write there."""
    return Reader()


def test_nothing_is_lost_and_the_order_stays(reader: Reader) -> None:
    """A reader that reads gets every line, in the order of each writer."""
    output = Output(reader.descriptor)
    got: list[bytes] = []
    reading = threading.Thread(target=lambda: got.append(reader.read(b"end\n")))
    reading.start()
    for number in range(200):
        output.write("".join(f"{number} {line}\n" for line in range(100)))
        time.sleep(0.0005)
    output.write("end\n")
    reading.join(10)
    assert got[0].decode() == "".join(f"{n} {line}\n" for n in range(200) for line in range(100)) + "end\n"
    assert output.dropped == 0


@pytest.mark.parametrize(
    ("max_bytes", "max_lines"), [(100_000, 10**6), (10**9, 1000)], ids=["bytes", "lines"]
)
def test_a_reader_that_stops(reader: Reader, max_bytes: int, max_lines: int) -> None:
    """Writing goes on at once; what is kept is bounded; one line in the gap says how many are missing."""
    output = Output(reader.descriptor, max_bytes=max_bytes, max_lines=max_lines)
    output.notice = lambda text: f"WARNING {text}"
    output.write("x" * PIPE + " and more\n")
    wait_until(lambda: reader.waiting() == PIPE, 5, "the pipe is full")
    began = time.monotonic()
    for number in range(10_000):
        output.write(f"line {number:04} {'y' * 90}\n")
    assert time.monotonic() - began < 5
    assert not output.finish(0.05)
    _, *kept, notice = reader.read(b"be written\n").decode().splitlines()
    assert [line.split()[1] for line in kept] == [f"{number:04}" for number in range(len(kept))]
    assert 900 <= len(kept) <= 1000
    assert output.dropped == 10_000 - len(kept)
    assert notice.startswith(f"WARNING {output.dropped} lines were dropped here")
    output.write("and on\n")
    assert reader.read(b"\n") == b"and on\n"


def test_a_disk_that_is_full_for_a_while(reader: Reader) -> None:
    """A text that the system refuses is dropped and counted; the next one that can be written says so."""
    full = os.open("/dev/full", os.O_WRONLY)
    output = Output(full)
    output.write("lost\nlost\n")
    wait_until(lambda: output.dropped == 2, 5, "the lines are counted")
    output.write("lost\n")
    wait_until(lambda: output.dropped == 3, 5, "the next one is")
    os.dup2(reader.descriptor, full)
    output.write("found\n")
    notice, found = reader.read(b"found\n").decode().splitlines()
    assert notice.startswith("3 lines were dropped here")
    assert found == "found"
    assert output.dropped == 3


def test_a_reader_that_goes_away(reader: Reader) -> None:
    """Nobody is there to read: lines are counted, and the end does not wait."""
    output = Output(reader.descriptor)
    reader.close()
    output.write("lost\n")
    wait_until(lambda: output.dropped == 1, 5, "the line is counted")
    assert output.finish(0)


def test_a_line_that_was_cut_is_ended(reader: Reader) -> None:
    """What tells of lost lines is a line of its own, also behind half a line."""
    full = os.open("/dev/full", os.O_WRONLY)
    spare = os.dup(full)
    os.dup2(reader.descriptor, full)
    output = Output(full)
    output.write("half")
    assert reader.read(b"half") == b"half"
    os.dup2(spare, full)
    output.write(" a line\n")
    wait_until(lambda: output.dropped == 1, 5, "the line is counted")
    os.dup2(reader.descriptor, full)
    output.write("next\n")
    assert reader.read(b"next\n").startswith(b"\n1 lines were dropped here")


def test_a_descriptor_that_does_not_block(reader: Reader) -> None:
    """Another process that shares the file may have made it non-blocking: nothing is lost."""
    os.set_blocking(reader.descriptor, False)
    output = Output(reader.descriptor)
    output.write("x" * (3 * PIPE) + "\nend\n")
    assert not output.finish(0.1)
    assert reader.read(b"end\n") == b"x" * (3 * PIPE) + b"\nend\n"
    assert output.dropped == 0


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_every_character_can_be_written(reader: Reader, encoding: str) -> None:
    """A character that the encoding does not have is escaped."""
    output = Output(reader.descriptor, encoding)
    output.write("\udc80 \u20ac\n")
    expected = "\\udc80 \u20ac\n" if encoding == "utf-8" else "\\udc80 \\u20ac\n"
    assert reader.read(b"\n").decode() == expected


def run(code: str, stderr: int, *, shell: str = "") -> subprocess.Popen[bytes]:
    """A process that takes its streams over, and what it does then."""
    python = [sys.executable, "-c", f"import sys\nfrom proxy import output\noutput.take_over()\n{code}"]
    command = ["sh", "-c", f'exec "$@" {shell}', "sh", *python] if shell else python
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr)


ENDINGS = {
    "returns": "",
    "exits": "sys.exit(0)",
    "has threads": "import threading; threading.Thread(target=print, args=['x' * 100_000]).start()",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_end_of_a_process_does_not_wait_for_a_reader(reader: Reader, ending: str) -> None:
    """A process whose output nobody reads ends about a second after it is done, by its own exit code."""
    code = f"for n in range(3): print('x' * 1_000_000, file=sys.stderr)\nprint('done')\n{ENDINGS[ending]}"
    with run(code, reader.descriptor) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        done = time.monotonic()
        process.stdout.read()
        assert process.wait(20) == 0
        assert time.monotonic() - done < 8  # of which the machine may take some


def test_the_end_of_a_process_writes_what_is_queued() -> None:
    """All that was said before the end is read, an error's traceback too; both streams keep one order."""
    code = "for n in range(9999): print(n, file=(sys.stdout, sys.stderr)[n % 2])\nraise SystemError('last')"
    with run(code, subprocess.STDOUT) as process:
        assert process.stdout is not None
        lines = process.stdout.read().decode().splitlines()
    assert lines[:9999] == [str(n) for n in range(9999)]
    assert lines[-1] == "SystemError: last"
    assert process.returncode == 1


def test_one_stream_does_not_stop_the_other(reader: Reader) -> None:
    """Standard output goes on while nobody reads standard error."""
    code = "print('x' * 3_000_000, file=sys.stderr)\nfor n in range(1000): print('y' * 1000)"
    with run(code, reader.descriptor) as process:
        assert process.stdout is not None
        assert len(process.stdout.read()) == 1000 * 1001


def test_streams_that_are_closed() -> None:
    """Without standard error what goes there is nobody's, and no file that is opened later gets it."""
    with run("print('x', file=sys.stderr)\nprint('done')", subprocess.STDOUT, shell="2>&-") as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"done\n"
    assert process.returncode == 0


def test_a_text_that_is_larger_than_the_queue_is_not_the_last(reader: Reader) -> None:
    """It is dropped, or a part of it; what comes later is written."""
    output = Output(reader.descriptor, max_bytes=1000)
    output.write("x" * 2000 + "\n")
    output.write("later\n")
    wait_until(lambda: reader.waiting() > 0, 1, "something is written")
    assert b"later" in reader.read(b"later\n")
