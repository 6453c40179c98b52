"""Runs a supervisor by itself, for tests that end it: arguments are the app, the count and the state folder.

Prints each replica's process id when it is ready, on a line; everything else goes to standard error.
"""

import asyncio
import signal
import sys
from pathlib import Path

from proxy.replicas import ReplicaEvent, ReplicaEventKind, Supervisor


def tell(event: ReplicaEvent) -> None:
    """Prints the process id of a replica that is ready."""
    if event.kind is ReplicaEventKind.READY:
        print(event.replica.pid, flush=True)
    else:
        print(event, file=sys.stderr)


async def main(app: str, count: str, state: str) -> None:
    """Runs until SIGTERM."""
    supervisor = Supervisor(
        Path(app),
        int(count),
        state=Path(state),
        output=lambda line: print(line, file=sys.stderr),
        on_event=tell,
    )
    supervisor.orphans.adopt()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, supervisor.stop)
    await supervisor.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
