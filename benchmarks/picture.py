"""The picture of the costs: a row for each work, a mark for each proxy, on an axis of ratios.

The ratio is to the better of HAProxy and nginx, whose line is 1; less is cheaper. The axis is logarithmic, so
that twice and half are as far from the line. Marks differ in shape as well as in colour.
"""

import math
from collections.abc import Mapping
from itertools import chain
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT = 1060, 572, 980  # of the picture, and where its axis begins and ends
LINE = 26  # from one line of the legend to the next
TOP, ROW = 112, 30  # the first row's middle under a legend of one line; from row to row
TICKS = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]
MARKS = [  # around 0,0; the first is ours
    "M-7 0a7 7 0 1 0 14 0a7 7 0 1 0-14 0z",
    "M-5-5H5V5H-5z",
    "M0-6L6 5H-6z",
    "M0-7L6 0L0 7L-6 0z",
    "M-6-3L-3-6L0-3L3-6L6-3L3 0L6 3L3 6L0 3L-3 6L-6 3L-3 0z",
    "M0 6L6-5H-6z",
    "M-7-2H-2V-7H2V-2H7V2H2V7H-2V2H-7z",
    "M-3-6H3L6 0L3 6H-3L-6 0z",
    "M-7-2.5H7V2.5H-7z",
    "M-2.5-7H2.5V7H-2.5z",
]
FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"
  role="img" aria-labelledby="title desc" font-size="14"
  font-family="system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', sans-serif">
  <title id="title">Cost beside the better of HAProxy and nginx, which is 1; less is cheaper</title>
  <desc id="desc">A row for each work, with a mark for each proxy at the ratio of its cost to that of the
    better of HAProxy and nginx in the same round. The figures stand in the table of the page.</desc>
  <style>
{style}
  </style>
  <rect class="card" x="0.5" y="0.5" width="{wide}" height="{high}" rx="10"/>
  <text class="head" x="24" y="32"
    >Cost beside the better of HAProxy and nginx, which is 1; less is cheaper</text>
  {lines}
</svg>
"""
STYLE = """\
    :root { color-scheme: light dark }
    .card { fill: #ffffff; stroke: #d0d7de }
    text { fill: #1f2328 }
    .head { font-weight: 600; font-size: 15px }
    .soft { fill: #57606a; font-size: 12.5px }
    .grid { stroke: #d0d7de } .one { stroke: #1f2328; stroke-width: 1.5 }
    .m0 { fill: #0969da } .m1 { fill: #bc4c00 } .m2 { fill: #1a7f37 }
    .m3 { fill: #8250df } .m4 { fill: #6e7781 } .m5 { fill: #bf3989 }
    .m6 { fill: #9a6700 } .m7 { fill: #1b7c83 } .m8 { fill: #cf222e } .m9 { fill: #4d2d00 }
    @media (prefers-color-scheme: dark) {
      .card { fill: #0d1117; stroke: #30363d }
      text { fill: #e6edf3 }
      .soft { fill: #9198a1 }
      .grid { stroke: #30363d } .one { stroke: #e6edf3 }
      .m0 { fill: #58a6ff } .m1 { fill: #f0883e } .m2 { fill: #3fb950 }
      .m3 { fill: #bc8cff } .m4 { fill: #9198a1 } .m5 { fill: #f778ba }
      .m6 { fill: #d29922 } .m7 { fill: #39c5cf } .m8 { fill: #ff7b72 } .m9 { fill: #e3b341 }
    }"""


def draw(costs: Mapping[str, Mapping[str, float]], names: list[str], ours: str) -> str:
    """The SVG of ratios by the words of a work and the name of a proxy; `names` are in the marks' order."""
    values = list(chain.from_iterable(row.values() for row in costs.values()))
    low = max((tick for tick in TICKS if tick <= min(0.5, *values)), default=TICKS[0])
    high = min((tick for tick in TICKS if tick >= max(2, *values)), default=TICKS[-1])
    lines, more = _legend(names)
    top = TOP + more
    bottom = top + ROW * len(costs)

    def place(ratio: float) -> float:
        share = math.log(ratio / low) / math.log(high / low)
        return round(LEFT + (RIGHT - LEFT) * min(max(share, 0), 1), 1)

    for tick in TICKS:
        if low <= tick <= high:
            x = place(tick)
            lines.append(
                f'<path class="{"one" if tick == 1 else "grid"}" d="M{x} {top - 18}V{bottom - 12}"/>'
            )
            lines.append(f'<text class="soft" x="{x}" y="{bottom + 6}" text-anchor="middle">{tick:g}</text>')
    for row, (words, ratios) in enumerate(costs.items()):
        y = top + ROW * row
        lines.append(f'<text x="24" y="{y + 5}">{escape(words)}</text>')
        lines += [
            _mark(names.index(name), place(ratios[name]), y) for name in reversed(names) if name in ratios
        ]
        if ours in ratios:
            lines.append(f'<text x="{WIDTH - 24}" y="{y + 5}" text-anchor="end">{ratios[ours]:.2f}</text>')
    lines.append(
        f'<text class="soft" x="{WIDTH - 24}" y="{bottom + 6}" text-anchor="end">{escape(ours)}</text>'
    )
    return _framed(lines, bottom + 24)


def _legend(names: list[str]) -> tuple[list[str], int]:
    """The marks with their names, and how much higher than one line it is."""
    lines, at, down = [], 24, 0
    for number, name in enumerate(names):
        wide = 8 * len(name) + 40
        if at + wide > WIDTH:
            at, down = 24, down + LINE
        lines.append(_mark(number, at + 7, 58 + down))
        lines.append(f'<text x="{at + 20}" y="{63 + down}">{escape(name)}</text>')
        at += wide
    return lines, down


def _mark(number: int, x: float, y: float) -> str:
    shape = number % len(MARKS)
    return f'<path class="m{shape}" transform="translate({x} {y})" d="{MARKS[shape]}"/>'


def _framed(lines: list[str], height: int) -> str:
    """The lines in a picture that says what it shows."""
    return FRAME.format(
        width=WIDTH, height=height, wide=WIDTH - 1, high=height - 1, style=STYLE, lines="\n  ".join(lines)
    )
