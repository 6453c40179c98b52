"""`make bench-lifecycle`: what users notice when instances and proxies come and go, beside HAProxy and nginx.

Real Chainlit instances, real Socket.IO clients, one proxy after the other, all in one run. Prints a
Markdown table for each work, and writes them to `docs/benchmarks/lifecycle.md`. HAProxy and nginx are
Debian's packages, installed if they are missing and that is allowed; one that cannot be had is left out.
"""

import argparse
import asyncio
import os
import platform
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import page
from benchmarks.lifecycle import shared
from benchmarks.lifecycle.crowd import Crowd, Figures
from benchmarks.lifecycle.haproxy import HAProxy
from benchmarks.lifecycle.nginx import Nginx
from benchmarks.lifecycle.peer import Ours, Peer
from benchmarks.lifecycle.rows import ROWS, Row, Stage
from benchmarks.lifecycle.shared import SHARED_ROWS
from benchmarks.peers import UnavailableError, program
from tests.browser.chromium import install
from tests.support.instances import Fleet

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks" / "lifecycle.md"
PEERS: dict[str, type[Peer]] = {"proxy": Ours, "haproxy": HAProxy, "nginx": Nginx}
HEADS = (
    "connections refused",
    "requests failed",
    "questions unanswered",
    "sessions that forgot",
    "seconds until usable, median / p99",
    "never usable again",
    "close codes",
    "processes of the proxy",
)


async def measure(kind: type[Peer], row: Row, fleet: Fleet, folder: Path, sessions: int) -> Figures:
    """One work on one proxy."""
    peer = kind([fleet[name] for name in row.instances], folder, row.leave)
    if row.held:
        peer.held = socket.create_server(("127.0.0.1", peer.port), backlog=1024)
    try:
        peer.start()
        async with Crowd(peer.url) as crowd:
            await crowd.come(sessions)
            crowd.watch()
            await row.work(Stage(peer, fleet, crowd))
            await crowd.through(row.patience)
            figures = crowd.count()
            figures.processes = len(peer.processes())
        return figures
    finally:
        peer.stop()


def cells(figures: Figures) -> list[str]:
    """The figures as the table shows them."""
    seconds = f"{figures.median:.1f} / {figures.p99:.1f}" if figures.seconds else "-"
    closes = ", ".join(f"{code}: {count}" for code, count in sorted(figures.closes.items())) or "-"
    counts = (
        figures.refused,
        figures.failed,
        figures.unanswered,
        figures.lost,
    )
    return [*map(str, counts), seconds, str(figures.never), closes, str(figures.processes)]


def table(row: Row, columns: dict[str, Figures], taken_on: str) -> str:
    """One work's table: a row for each figure that any proxy has, a column for each proxy."""
    shown = {name: cells(figures) for name, figures in columns.items()}
    rows = [[head, *(column[at] for column in shown.values())] for at, head in enumerate(HEADS)]
    if row.ours:
        offline = [figures.offline for figures in columns.values()]
        times = [f"{statistics.median(all_):.1f} / {max(all_):.1f}" if all_ else "-" for all_ in offline]
        rows.append(["seconds offline, median / longest", *times])
        rows.append(["the long answer", *(figures.answer for figures in columns.values())])
    return "\n".join([row.words, "", taken_on, "", *page.table(["", *shown], page.telling(rows)), "", ""])


def available(names: list[str]) -> dict[str, type[Peer]]:
    """The proxies that can be had, by name and version; the others are told of."""
    wanted = [name for name in names if name != "proxy"]
    if missing := [name for name in wanted if not _is_there(name)]:
        install(missing)
    found = {}
    for name in names:
        try:
            found[f"{PEERS[name].name} {PEERS[name].version()}"] = PEERS[name]
        except UnavailableError as error:
            print(f"{name}: left out, {error}", flush=True)
    return found


def _is_there(name: str) -> bool:
    try:
        return bool(program(name))
    except UnavailableError:
        return False


def conditions(sessions: int, began: datetime) -> str:
    """What the figures were taken on."""
    return f"{sessions} sessions, {began:%Y-%m-%d}; {machine()}."


def machine() -> str:
    """Versions, cores, and whether this runs ahead of others."""
    ahead = sys.platform == "linux" and os.sched_getscheduler(0) != os.SCHED_OTHER
    return (
        f"Chainlit {version('chainlit')}, Python {platform.python_version()}, {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} cores"
        f"{', ahead of what else they had to do' if ahead else ''}"
    )


def write(tables: dict[str, str], words: list[str], mark: str) -> None:
    """Puts tables between two marks of the page, in the order of these words; those of other rows stay."""
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    before, _, rest = PAGE.read_text().partition(begin)
    old, _, after = rest.partition(end)
    found = {part.partition("\n")[0]: part for part in old.split("### ")[1:]}
    shown = found | tables
    figures = "".join("### " + shown[one] for one in words if one in shown)
    PAGE.write_text(f"{before}{begin}\n\n{figures}{end}{after}")


def run(peers: dict[str, type[Peer]], rows: list[Row], sessions: int) -> dict[str, str]:
    """Measures everything; the tables, by the words of their rows."""
    taken_on = conditions(sessions, datetime.now(UTC))
    tables = {}
    folder = Path(tempfile.mkdtemp(prefix="lifecycle-"))
    try:
        with Fleet(folder, 3) as fleet:
            for row in rows:
                columns = {}
                for name, kind in peers.items():
                    if row.ours and kind is not Ours:
                        continue
                    began = time.monotonic()
                    where = folder / f"{row.name}-{kind.name}"
                    where.mkdir()
                    fleet.heal()
                    try:
                        columns[name] = asyncio.run(measure(kind, row, fleet, where, sessions))
                    except (AssertionError, RuntimeError) as error:
                        print(f"{name}, {row.name}: {error}", file=sys.stderr, flush=True)
                    took = time.monotonic() - began
                    print(f"{row.name}: {name} in {took:.0f} s", file=sys.stderr, flush=True)
                tables[row.words] = table(row, columns, taken_on)
                print(tables[row.words], flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return tables


def main() -> int:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lifecycle", description=__doc__)
    parser.add_argument("--sessions", type=int, default=120, help="of each row (120)")
    parser.add_argument(
        "--talkers", type=int, default=60, help="sessions of each row of shared sessions (60)"
    )
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    names = [row.name for row in ROWS] + [row.name for row in SHARED_ROWS]
    parser.add_argument("--rows", nargs="+", choices=names, default=names)
    parser.add_argument("--dry", action="store_true", help="leave the page as it is")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything started ends with it
    peers = available(options.peers)
    shared_rows = [row for row in SHARED_ROWS if row.name in options.rows]
    for words, told in shared.run(peers, shared_rows, options.talkers, machine()) if shared_rows else ():
        print(told, flush=True)
        if not options.dry:
            write({words: told}, [row.words for row in SHARED_ROWS], "shared sessions")
    rows = [row for row in ROWS if row.name in options.rows]
    if rows:
        tables = run(peers, rows, options.sessions)
        if not options.dry:
            write(tables, [row.words for row in ROWS], "figures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
