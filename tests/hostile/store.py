"""A real Redis as the store of shared sessions, and all that such a server does to those who rely on it."""

import socket
from pathlib import Path

from tests.support.processes import free_port
from tests.support.redis_server import RedisServer

FULL = 1  # byte: whatever is there already is more


class HostileStore(RedisServer):
    """Owned by the site. Replicas of it begin at once: nobody waits for more of them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(folder)
        self.command += ["--maxmemory-policy", "noeviction", "--repl-diskless-sync-delay", "0"]
        self._alone = list(self.command)

    def follow(self, other: RedisServer | None) -> None:
        """From its next start on it is a replica of another one, or of none."""
        self.command = [*self._alone, *(["--replicaof", f"127.0.0.1 {other.port}"] if other else [])]

    def answer_to(self, *words: str) -> bytes:
        """What it says to a command, as it comes; AssertionError if that is an error."""
        request = b"*%d\r\n" % len(words) + b"".join(
            b"$%d\r\n%b\r\n" % (len(word.encode()), word.encode()) for word in words
        )
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(request)
            answer = connection.recv(1 << 16)
            connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(1 << 16):
                answer += more
        assert not answer.startswith(b"-"), (words, answer)
        return answer

    def fill(self) -> None:
        """It has no room for anything more."""
        self.answer_to("CONFIG", "SET", "maxmemory", str(FULL))

    def make_room(self) -> None:
        """There is room again."""
        self.answer_to("CONFIG", "SET", "maxmemory", "0")

    def lock(self) -> None:
        """It is a replica of nobody who answers: it can be read only."""
        self.answer_to("REPLICAOF", "127.0.0.1", str(free_port()))

    def unlock(self) -> None:
        """It is written by whoever wants to."""
        self.answer_to("REPLICAOF", "NO", "ONE")

    def hang_up(self) -> None:
        """All connections of clients are gone."""
        self.answer_to("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def forget(self) -> None:
        """It is empty, and nobody is told."""
        self.answer_to("FLUSHALL")

    def is_copy(self) -> bool:
        """Whether it has all that the one has whose replica it is."""
        try:
            return b"master_link_status:up" in self.answer_to("INFO", "replication")
        except (OSError, AssertionError):  # it has not begun, or loads
            return False

    def records(self) -> dict[str, bytes]:
        """What it has of each session, by its id."""
        found = {}
        for part in self.answer_to("KEYS", "*:session:*").split(b"\r\n"):
            if b":session:" in part:
                key = part.decode()
                found[key.rpartition(":")[2]] = self.answer_to("HVALS", key)
        return found
