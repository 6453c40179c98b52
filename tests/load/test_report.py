"""What a test has found is told in words, as data and as a page."""

import json
from html.parser import HTMLParser

from proxy.load import report
from proxy.load.protocol import Transport
from proxy.load.run import Outcome, Plan, Trial
from proxy.load.tally import Answer, Second, Tally
from proxy.load.user import Habits


def outcome(carried: int | None = 30, instances: int = 2) -> Outcome:
    """Ten answers in ten seconds, one error, one disconnect."""
    habits = Habits("http://127.0.0.1:8000/<a>", ("hi",), 5.0, 60.0, {})
    tally = Tally(opened=10, asked=12)
    tally.answers = [Answer(100.0 + at, 100.5 + at, 101.0 + at, 10) for at in range(10)]
    tally.connects = [(100.0, 0.2)] * 10
    tally.errors, tally.disconnects = [(105.0, "500 to a poll")], [(106.0, "websocket closed (1006)")]
    tally.tokens.update({100 + at: 10 for at in range(10)})
    tally.seconds = [Second(100.0 + at, 10, {"generator": 0.1, "instance 1": 0.5}) for at in range(10)]
    plan = Plan(habits, 100, 1.0, (Transport.PAGE,), target=2.0)
    found = Outcome(plan, tally, 100.0, 0.0, 10.0, carried=carried, instances=instances, own_cpu=0.1)
    found.trials = [
        Trial(30, tally.span(100.0, 110.0), True, True),
        Trial(40, tally.span(100, 110), False, False),
    ]
    return found


def test_a_span_counts_what_was_in_it() -> None:
    """Answers by their first token; whoever waits for longer than nine of ten did counts as well."""
    tally = outcome().tally
    span = tally.span(102.0, 106.0)
    assert (span.answers, span.tokens, span.errors, span.disconnects) == (4, 40, 1, 1)
    assert span.quantile(0.9) == 0.5
    tally.waiting[7] = 103.0
    assert tally.span(102.0, 106.0).quantile(1.0) == 3.0


def test_how_many_instances_are_told() -> None:
    """Users of each, and one instance to spare; where nobody was seen that is said."""
    assert report.summary(outcome()) == (
        "30 users with a first token within 2 s, on 2 instances: 15 each. For as many users with one to"
        " spare: 3 instances."
    )
    assert "on 1 instance (not seen from here: taken for one): 30 each" in report.summary(
        outcome(instances=0)
    )
    assert report.summary(outcome(carried=0)) == "Not even one user gets the first token within 2 s."


def test_the_data_can_be_read_again() -> None:
    """All figures as JSON, errors by kind."""
    told = json.loads(report.as_json(outcome()))
    assert told["errors"] == {"500 to a poll": 1}
    assert told["disconnects"] == {"websocket closed (1006)": 1}
    assert told["first_token_seconds"]["p90"] == 0.5
    assert told["carried"]["users_per_instance"] == 15.0
    assert told["cpu_cores"]["instance 1"] == {"mean": 0.5, "most": 0.5}
    assert sum(point["tokens"] for point in told["timeline"]) == 100


def test_a_busy_generator_is_told() -> None:
    """Its figures are in doubt where it used a core, or was late itself."""
    busy, late = outcome(), outcome()
    busy.own_cpu, late.own_lateness = 0.95, 0.2
    assert "0.95 cores" in report.text(busy)
    assert "200 ms late" in report.text(late)
    assert "in doubt" not in report.text(outcome())


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """As HTMLParser."""
        self.tags.append(tag)
        self.fetched += [name for name, _ in attrs if name in {"src", "href"}]


def test_the_page_has_pictures_and_fetches_nothing() -> None:
    """One SVG for each figure; what comes from outside cannot be markup."""
    page = report.page(outcome())
    tags = _Tags()
    tags.feed(page)
    assert tags.tags.count("svg") == 6
    assert not tags.fetched
    assert "/<a>" not in page
    assert "nothing was measured" in report.page(Outcome(outcome().plan, Tally(), 0.0, 0.0))
