"""What a test has found: as data for JSON, as text for the terminal, and as a page of HTML with pictures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from time import gmtime, strftime
from typing import Any

from proxy.load.run import QUANTILE, Outcome, Trial
from proxy.load.tally import Span, quantile

SPARE = 1  # instances more than the users need, as in docs/capacity.md
BUSY = 0.8  # cores of the generator above which its own figures are in doubt
LATE = 0.05  # seconds of lateness of the generator above which they are
_WIDE, _HIGH = 720, 160  # of a picture


def data(outcome: Outcome) -> dict[str, Any]:
    """All of it; seconds, numbers and words."""
    tally, plan = outcome.tally, outcome.plan
    connects = sorted(seconds for _, seconds in tally.connects)
    return {
        "url": plan.habits.url,
        "started": strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(outcome.started)),
        "seconds": round(outcome.seconds, 1),
        "think": plan.habits.think,
        "target": plan.target,
        "sessions": tally.opened,
        "asked": tally.asked,
        "answers": len(tally.answers),
        "disconnects": tally.lost(),
        "errors": tally.kinds(),
        "connect_seconds": _quantiles(connects),
        "first_token_seconds": _quantiles(sorted(answer.waited for answer in tally.answers)),
        "answer_seconds": _quantiles(sorted(answer.ended - answer.asked for answer in tally.answers)),
        "tokens": sum(tally.tokens.values()),
        "steady": _span(outcome.whole) if outcome.whole else None,
        "cpu_cores": _cpu(outcome),
        "trials": [_trial(trial) for trial in outcome.trials],
        "carried": _carried(outcome),
        "generator": {
            "cpu_cores": round(outcome.own_cpu, 3),
            "late_seconds": round(outcome.own_lateness, 4),
            "in_doubt": in_doubt(outcome),
        },
        "timeline": _timeline(outcome),
    }


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    parts = {"median": 0.5, "p90": 0.9, "p99": 0.99, "most": 1.0}
    return {name: round(quantile(values, part), 4) for name, part in parts.items()}


def _span(span: Span) -> dict[str, Any]:
    return {
        "seconds": round(span.seconds, 1),
        "users": round(span.users, 1),
        "answers_per_second": round(span.answers / span.seconds, 3),
        "tokens_per_second": round(span.tokens / span.seconds, 1),
        "first_token_seconds": _quantiles(span.first),
        "errors": span.errors,
        "disconnects": span.disconnects,
    }


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "asked_for": trial.users,
        "carried": trial.carried,
        "confirmation": trial.is_confirmation,
    } | _span(trial.span)


def _carried(outcome: Outcome) -> dict[str, Any] | None:
    """How many users, and what follows for the number of instances."""
    if outcome.carried is None:
        return None
    instances = max(1, outcome.instances)
    each = outcome.carried / instances
    return {
        "users": outcome.carried,
        "at_least": outcome.is_most,
        "instances": instances,
        "instances_seen": outcome.instances > 0,
        "users_per_instance": round(each, 1),
        "instances_with_one_to_spare": instances + SPARE if outcome.carried else None,
    }


def _cpu(outcome: Outcome) -> dict[str, dict[str, float]]:
    """Cores in use, by process: on average and at most."""
    names = dict.fromkeys(name for second in outcome.tally.seconds for name in second.cpu)
    known = {name: [s.cpu[name] for s in outcome.tally.seconds if name in s.cpu] for name in names}
    return {
        name: {"mean": round(sum(cores) / len(cores), 3), "most": round(max(cores), 3)}
        for name, cores in known.items()
    }


def _timeline(outcome: Outcome) -> list[dict[str, Any]]:
    """A point for each second."""
    tally, points = outcome.tally, []
    by_second: dict[int, list[float]] = {}
    for answer in tally.answers:
        by_second.setdefault(int(answer.first), []).append(answer.waited)
    wrong: dict[int, int] = {}
    for at, _ in (*tally.errors, *tally.disconnects):
        wrong[int(at)] = wrong.get(int(at), 0) + 1
    for second in tally.seconds:
        at = int(second.at)
        waited = sorted(by_second.get(at, []))
        points.append(
            {
                "at": round(second.at - outcome.began, 1),
                "users": second.users,
                "first_token_p90": round(quantile(waited, QUANTILE), 4) if waited else None,
                "tokens": tally.tokens[at],
                "wrong": wrong.get(at, 0),
                "cpu_cores": {name: round(cores, 3) for name, cores in second.cpu.items()},
            }
        )
    return points


def in_doubt(outcome: Outcome) -> str:
    """Why the figures may be those of the generator, "" if they are not."""
    if outcome.own_cpu > BUSY:
        return f"the generator itself used {outcome.own_cpu:.2f} cores: run it elsewhere, or with fewer users"
    if outcome.own_lateness > LATE:
        return f"the generator itself was {1000 * outcome.own_lateness:.0f} ms late: this machine is too busy"
    return ""


def text(outcome: Outcome) -> str:
    """What is told on the terminal in the end."""
    told = data(outcome)
    first, connect, answer = (told[f"{name}_seconds"] for name in ("first_token", "connect", "answer"))
    lines = [
        f"sessions     {told['sessions']} opened, usable after {_told(connect)}",
        f"first token  {_told(first)}",
        f"answers      {told['answers']} whole of {told['asked']} asked, after {_told(answer)}",
        f"tokens       {told['tokens']}, {told['tokens'] / max(outcome.seconds, 0.001):.0f} a second",
        f"errors       {_counts(told['errors'])}",
        f"disconnects  {_counts(told['disconnects'])}",
        f"CPU          {_cores(told['cpu_cores'])}",
    ]
    for trial in told["trials"]:
        kind = "confirmed" if trial["confirmation"] and trial["carried"] else "carried"
        verdict = kind if trial["carried"] else "too much"
        p90 = trial["first_token_seconds"]["p90"]
        lines.append(
            f"{trial['asked_for']:>6} users  {verdict:<9}  nine of ten first tokens within {p90:.2f} s"
        )
    lines += [summary(outcome)] if told["carried"] else []
    return "\n".join([*lines, *([f"in doubt: {in_doubt(outcome)}"] if in_doubt(outcome) else [])])


def summary(outcome: Outcome) -> str:
    """The result of a search in a sentence or two."""
    carried = _carried(outcome)
    target = outcome.plan.target
    assert carried
    if not carried["users"]:
        return f"Not even one user gets the first token within {target:g} s."
    least = "at least " if carried["at_least"] else ""
    seen = "" if carried["instances_seen"] else " (not seen from here: taken for one)"
    return (
        f"{least}{carried['users']} users with a first token within {target:g} s, on {carried['instances']}"
        f" instance{'s' * (carried['instances'] != 1)}{seen}: {carried['users_per_instance']:g} each. For as"
        f" many users with one to spare: {carried['instances_with_one_to_spare']} instances."
    )


def _told(quantiles: dict[str, float]) -> str:
    return f"{quantiles['median']:.2f} s, nine of ten within {quantiles['p90']:.2f} s"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} x {kind}" for kind, count in counts.items()) or "none"


def _cores(cpu: dict[str, dict[str, float]]) -> str:
    return ", ".join(f"{name} {cores['mean']:.2f} (most {cores['most']:.2f})" for name, cores in cpu.items())


@dataclass(frozen=True, slots=True)
class _Line:
    name: str
    points: list[tuple[float, float]]


def page(outcome: Outcome) -> str:
    """One file of HTML: the words, and the pictures as SVG; nothing is fetched from elsewhere."""
    told = data(outcome)
    timeline = told["timeline"]
    names = list(told["cpu_cores"])
    pictures = [
        ("Users connected", "", [_line("users", timeline, "users")]),
        ("First token, nine of ten, seconds", "s", [_line("first token", timeline, "first_token_p90")]),
        ("Tokens a second", "", [_line("tokens", timeline, "tokens")]),
        ("Errors and disconnects a second", "", [_line("wrong", timeline, "wrong")]),
        (
            "CPU, cores",
            "",
            [
                _Line(name, [(p["at"], p["cpu_cores"][name]) for p in timeline if name in p["cpu_cores"]])
                for name in names
            ],
        ),
    ]
    shown = "".join(f"<h2>{escape(title)}</h2>{_picture(lines)}" for title, _, lines in pictures)
    if outcome.trials:
        points = sorted((t["asked_for"], t["first_token_seconds"]["p90"]) for t in told["trials"])
        curve = [_Line("first token", [(float(users), seconds) for users, seconds in points])]
        shown = (
            f"<h2>First token by users, nine of ten, seconds</h2>{_picture(curve, outcome.plan.target)}"
            + shown
        )
    result = f"<p class=result>{escape(summary(outcome))}</p>" if told["carried"] else ""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Load of {escape(told['url'])}</title>"
        f"<style>{_STYLE}</style><main><h1>Load of {escape(told['url'])}</h1><p>{told['started']},"
        f" {told['seconds']:g} s</p>{result}<pre>{escape(text(outcome))}</pre>{shown}</main></html>\n"
    )


def _line(name: str, timeline: list[dict[str, Any]], key: str) -> _Line:
    return _Line(name, [(point["at"], float(point[key])) for point in timeline if point[key] is not None])


def _picture(lines: list[_Line], limit: float | None = None) -> str:
    points = [point for line in lines for point in line.points]
    if not points:
        return "<p>nothing was measured</p>"
    most = max([y for _, y in points] + [limit or 0.0]) or 1.0
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    across = (right - left) or 1.0

    def place(x: float, y: float) -> str:
        return f"{40 + (_WIDE - 50) * (x - left) / across:.1f},{_HIGH - 20 - (_HIGH - 30) * y / most:.1f}"

    drawn = "".join(
        f'<polyline class=l{at % 6} points="{" ".join(place(*point) for point in line.points)}"/>'
        for at, line in enumerate(lines)
    )
    if limit is not None:
        drawn += f'<polyline class=limit points="{place(left, limit)} {place(right, limit)}"/>'
    names = " ".join(f"<span class=k{at % 6}>{escape(line.name)}</span>" for at, line in enumerate(lines))
    return (
        f'<figure><svg viewBox="0 0 {_WIDE} {_HIGH}" role=img><text x=0 y=14>{most:g}</text>'
        f"<text x=0 y={_HIGH - 20}>0</text><text x=40 y={_HIGH - 4}>{left:g}</text>"
        f"<text x={_WIDE - 10} y={_HIGH - 4} text-anchor=end>{right:g}</text>{drawn}</svg>"
        f"{'<figcaption>' + names + '</figcaption>' if len(lines) > 1 else ''}</figure>"
    )


def as_json(outcome: Outcome) -> str:
    """As a file has it."""
    return json.dumps(data(outcome), indent=2) + "\n"


_COLOURS = ("#0969da", "#cf222e", "#1a7f37", "#9a6700", "#8250df", "#57606a")
_STYLE = (
    ":root{color-scheme:light dark}body{font:15px/1.45 system-ui,sans-serif;margin:1rem}main{max-width:50rem;"
    "margin:auto}h2{font-size:1rem;margin:1rem 0 .2rem}svg{width:100%}polyline{fill:none;stroke-width:1.5}"
    "text{font-size:11px;fill:currentColor}figure{margin:0}pre{overflow:auto}.result{font-weight:600}"
    ".limit{stroke:#cf222e;stroke-dasharray:4}"
    + "".join(f".l{at}{{stroke:{colour}}}.k{at}{{color:{colour}}}" for at, colour in enumerate(_COLOURS))
)
