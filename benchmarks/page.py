"""The page of the figures, docs/benchmarks/cpu.md: each table stands between two comments of its name.

So does the picture, there and in the README.
"""

import os
import platform
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks" / "cpu.md"
PICTURE = PAGE.with_suffix(".svg")
README = ROOT / "README.md"
ENOUGH = 3  # rounds of which a median says something
ALT = "Cost of this proxy, nginx, HAProxy and others, as ratios to the better of HAProxy and nginx"


def put(name: str, lines: list[str], page: Path = PAGE) -> None:
    """Puts lines in place of what stands between the comments."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, _, rest = page.read_text().partition(begin)
    after = rest.partition(end)[2]
    page.write_text("\n".join((before + begin, "", *lines, "", end + after)))


def put_picture(svg: str) -> None:
    """Writes the picture, and shows it on the page and in the README."""
    PICTURE.write_text(svg)
    for page in (PAGE, README):
        put("picture", [f"![{ALT}]({PICTURE.relative_to(page.parent)})"], page)


def table(heads: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table; every column but the first is of numbers."""
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def telling(rows: list[list[str]]) -> list[list[str]]:
    """Those rows in which some column has a figure other than 0."""
    return [row for row in rows if not {"0", "-"}.issuperset(row[1:])]


def taken(rounds: int = 0) -> str:
    """When and on what something was measured, in how many rounds; few are said to be few."""
    system = f"{platform.system()} {platform.release()}"
    machine = f"Python {platform.python_version()}, {system}, {os.cpu_count()} cores"
    told = f"{time.strftime('%Y-%m-%d')}; {machine}."
    if not rounds:
        return told
    told = f"{rounds} round{'s' * (rounds > 1)}, {told}"
    busy = f"under a load of {os.getloadavg()[1]:.1f}"
    return told if rounds >= ENOUGH else f"{told} A short run {busy}: its figures are to be taken again."
