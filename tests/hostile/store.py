"""A real Redis as the store of shared sessions, and all that such a server does to those who rely on it."""

import socket
from pathlib import Path

from tests.support.redis_server import RedisServer


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

    def query(self, *words: str) -> bytes:
        """What it says to a command, whole and as it comes; AssertionError if that is an error."""
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

    def hang_up(self) -> None:
        """All connections of clients are gone."""
        self.query("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def is_copy(self) -> bool:
        """Whether it has all that the one has whose replica it is."""
        try:
            return b"master_link_status:up" in self.query("INFO", "replication")
        except (OSError, AssertionError):  # it has not begun, or loads
            return False

    def records(self) -> dict[str, bytes]:
        """What it has of each session, by its id."""
        found = {}
        for part in self.query("KEYS", "*:session:*").split(b"\r\n"):
            if b":session:" in part:
                key = part.decode()
                found[key.rpartition(":")[2]] = self.query("HVALS", key)
        return found
