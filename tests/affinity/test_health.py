"""The verdict on a backend: a table of observations and what is thought after each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.affinity.health import Health, HealthRules, Observation, Verdict

OBSERVED = {
    "a": Observation.ANSWERED,
    "f": Observation.FAILED,
    "d": Observation.DENIED,
    "s": Observation.SILENT,
    "r": Observation.REFUSED,
}
VERDICTS = {Verdict.HEALTHY: "H", Verdict.DEGRADED: "D", Verdict.DOWN: "-"}
RULES = HealthRules(fall=3, rise=2, evict_after=45.0)


def after(observations: str, step: float = 2.0, rules: HealthRules = RULES) -> str:
    """The verdict after each observation, one every `step` seconds, from 0 on."""
    health = Health(rules, 0.0)
    said = ""
    for at, letter in enumerate(observations):
        before = health.verdict
        flipped = health.observe(OBSERVED[letter], at * step)
        assert flipped == (health.verdict is not before)
        said += VERDICTS[health.verdict]
    return said


# observations (a answered, f failed, d denied, s silent, r refused), the verdict after each, the rule
TABLE = [
    ("a", "H", "healthy with its first answer"),
    ("rsfa", "---H", "refused at first: it is starting, and what follows changes nothing before an answer"),
    ("ssa", "DDH", "silent at first is degraded: it may be an instance with sessions that is met again"),
    ("ffa", "DDH", "so is one whose first answer is a bad one"),
    ("ssra", "DD-H", "refused is down at once then too"),
    ("s" * 24 + "a", "D" * 23 + "-H", "it has evict_after seconds from when it was met"),
    ("f" * 24, "D" * 23 + "-", "bad answers before the first good one are none"),
    ("aaa", "HHH", "answers keep it healthy"),
    ("ass", "HHH", "fewer failures than fall in a row change nothing"),
    ("asss", "HHHD", "fall silences in a row make it degraded: slow is not dead"),
    ("afff", "HHHD", "so do bad answers"),
    ("asfs", "HHHD", "and both together"),
    ("assass", "HHHHHH", "an answer begins the count anew"),
    ("asssa", "HHHDD", "one answer is not enough to come back"),
    ("asssaa", "HHHDDH", "rise answers in a row are"),
    ("asssasa", "HHHDDDD", "a failure between them begins the count anew"),
    ("ar", "H-", "refused is down at once"),
    ("asssr", "HHHD-", "also from degraded"),
    ("ara", "H--", "one answer does not bring it back"),
    ("araa", "H--H", "rise answers do"),
    ("arara", "H----", "a refusal between them begins the count anew"),
    ("arsss", "H----", "silence of one that is down changes nothing"),
    ("arfff", "H----", "bad answers of one that is down change nothing"),
    ("asss" + "s" * 20, "HHHD" + "D" * 19 + "-", "evict_after seconds without an answer make it down"),
    ("asss" + "s" * 10 + "a" + "s" * 22, "HHHD" + "D" * 10 + "D" + "D" * 22, "an answer begins them anew"),
    ("afff" + "f" * 40, "HHHD" + "D" * 40, "bad answers are answers: it is never down for them"),
    ("d" * 40 + "a", "D" * 40 + "H", "denials are answers before the first good one too"),
    ("addd" + "d" * 40, "HHHD" + "D" * 40, "and never make it down later"),
    ("sd" + "s" * 23, "D" * 24 + "-", "silence counts from the last denial"),
    ("rd", "-D", "a denial shows that the process is there"),
    ("ardaa", "H-DDH", "also after it was down; answers bring it back as ever"),
    ("adada", "HHHHH", "fewer denials than fall in a row change nothing"),
]


@pytest.mark.parametrize(("observations", "verdicts", "rule"), TABLE, ids=[row[2] for row in TABLE])
def test_verdicts(observations: str, verdicts: str, rule: str) -> None:
    """Each row states its rule; observations come every two seconds."""
    assert after(observations) == verdicts


def test_eviction_counts_from_the_last_answer() -> None:
    """A blocked loop of 44.9 s costs nobody a session; at 45 s it is taken for dead."""
    for now, verdict in ((44.9, Verdict.DEGRADED), (45.0, Verdict.DOWN)):
        health = Health(HealthRules(fall=1, rise=1, evict_after=45.0), 0.0)
        health.observe(Observation.ANSWERED, 0.0)
        health.observe(Observation.SILENT, 2.0)
        health.observe(Observation.SILENT, now)
        assert health.verdict is verdict


def test_rules_are_arguments() -> None:
    """With fall and rise of one each observation counts."""
    assert after("asas", rules=HealthRules(fall=1, rise=1)) == "HDHD"


def test_only_a_return_from_down_is_slow_started() -> None:
    """One that was gone starts slowly; a first start or a slow backend does not."""
    health = Health(RULES, 0.0)
    times = iter(range(100))
    returned = []
    for letter in "asssaaraa":
        health.observe(OBSERVED[letter], float(next(times)))
        returned.append(health.returned)
    assert returned == [None] * 8 + [8.0]


# observations, whether its clients have to be told in its place that it is there
SILENCES = [("", False), ("a", False), ("as", True), ("asss", True), ("assa", False), ("s", True),
            ("ad", False), ("asd", False), ("af", True), ("ar", False), ("a" + "s" * 24, False)]  # fmt: skip


@pytest.mark.parametrize(("observations", "silent"), SILENCES)
def test_silence(observations: str, silent: bool) -> None:
    """Silent is what gave no sound answer lately, until it is given up."""
    health = Health(RULES, 0.0)
    for at, letter in enumerate(observations):
        health.observe(OBSERVED[letter], 2.0 * at)
    assert health.is_silent is silent


# observations, whether the next probe is due sooner
TRANSITIONS = [("", False), ("a", False), ("as", True), ("asa", False), ("asss", False), ("asssa", True),
               ("ar", False), ("ara", True), ("araa", False)]  # fmt: skip


@pytest.mark.parametrize(("observations", "sooner"), TRANSITIONS)
def test_a_verdict_that_is_in_doubt_is_probed_sooner(observations: str, sooner: bool) -> None:
    """Between two verdicts every answer counts, so the next is asked for at once."""
    health = Health(RULES, 0.0)
    for at, letter in enumerate(observations):
        health.observe(OBSERVED[letter], float(at))
    assert health.in_transition is sooner


def test_a_return_by_way_of_a_denial_is_one() -> None:
    """Down, then denied while it starts, then healthy: it starts slowly, and flaps count."""
    health = Health(RULES, 0.0)
    for at, letter in enumerate("ardaa"):
        health.observe(OBSERVED[letter], float(at))
    assert (health.verdict, health.returned) == (Verdict.HEALTHY, 4.0)


# observations, the reason in the end
REASONS = [
    ("", ""),
    ("a", ""),
    ("ass", ""),
    ("asss", "silent for 6 s"),
    ("asssd", "why d"),
    ("assdd", "why d"),
    ("assdds", "silent for 2 s"),
    ("ar", "why r"),
    ("araa", ""),
    ("sssss", "silent for 8 s"),
    ("r", "why r"),
]


@pytest.mark.parametrize(("observations", "reason"), REASONS)
def test_the_reason_is_what_speaks_against_it_now(observations: str, reason: str) -> None:
    """The newest bad observation of one that is not healthy; silence tells how long it lasts."""
    health = Health(RULES, 0.0)
    for at, letter in enumerate(observations):
        health.observe(OBSERVED[letter], at * 2.0, "" if letter in "as" else f"why {letter}")
    assert health.reason == reason


def test_a_reason_is_short() -> None:
    """Whatever a backend says, the log and the page get a line of it."""
    health = Health(RULES, 0.0)
    health.observe(Observation.REFUSED, 1.0, "x" * 1000)
    assert len(health.reason) == 200


def test_time_in_which_we_stood_still_is_no_silence() -> None:
    """Frozen for 46 s, a proxy finds nobody silent for that; 45 s of its own time are as long as ever."""
    health = Health(HealthRules(fall=1, rise=1, evict_after=45.0), 0.0)
    health.observe(Observation.ANSWERED, 0.0)
    health.stood(46.0)
    verdicts = []
    for now in (47.0, 90.9, 91.0):
        health.observe(Observation.SILENT, now)
        verdicts.append(health.verdict)
    assert verdicts == [Verdict.DEGRADED, Verdict.DEGRADED, Verdict.DOWN]


def test_since_is_when_the_verdict_was_reached() -> None:
    """Observations that change nothing do not touch it."""
    health = Health(RULES, 5.0)
    assert health.since == 5.0
    health.observe(Observation.ANSWERED, 6.0)
    health.observe(Observation.ANSWERED, 7.0)
    assert health.since == 6.0
    assert repr(health) == "<Health healthy answers=2 failures=0>"


@given(st.text("adfsr", max_size=60), st.floats(0.5, 30.0))
def test_silence_alone_never_makes_down_before_its_time(observations: str, step: float) -> None:
    """To down leads only a refusal, or evict_after seconds since the last answer, or since it was met."""
    verdicts = "-" + after(observations, step)
    last_answer = 0
    for at, letter in enumerate(observations):
        if verdicts[at] != "-" and verdicts[at + 1] == "-" and letter != "r":
            assert (at - last_answer) * step >= 45.0
        if letter in "ad" or (letter == "f" and "a" in observations[:at]):
            last_answer = at


def silent_since(last_answer: float, rules: HealthRules, interval: float, timeout: float) -> dict[str, float]:
    """When a backend that answered for the last time then is degraded and down, probed as the prober does."""
    pause = min(0.2, interval / 8)
    health = Health(rules, 0.0)
    health.observe(Observation.ANSWERED, last_answer)
    now, when = last_answer + interval * 1.1, {}
    while health.verdict is not Verdict.DOWN:
        now += health.probe_timeout(now, timeout, interval, pause)
        if health.observe(Observation.SILENT, now):
            when[health.verdict.value] = now - last_answer
        now += pause if health.in_doubt else health.pause(now, interval * 1.1, timeout, pause)
    return when


@pytest.mark.parametrize(
    ("interval", "timeout", "fall"), [(2.0, 2.0, 3), (2.0, 1.0, 3), (1.0, 1.0, 4), (0.5, 0.5, 3)]
)
def test_silence_is_noticed_within_fall_intervals(interval: float, timeout: float, fall: int) -> None:
    """A probe may take as long as an interval; the doubt it leaves is settled by shorter ones."""
    when = silent_since(7.0, HealthRules(fall=fall, evict_after=45.0), interval, timeout)
    assert when["degraded"] <= fall * interval
    assert 45.0 <= when["down"] <= 45.0 + 0.8


@pytest.mark.parametrize("evict_after", [2.5, 4.0, 10.0])
def test_silence_ends_on_time(evict_after: float) -> None:
    """The probe under way ends when `evict_after` is over, be the backend degraded by then or not."""
    when = silent_since(7.0, HealthRules(fall=3, evict_after=evict_after), 2.0, 2.0)
    assert evict_after <= when["down"] <= evict_after + 0.8


def test_one_that_flaps_has_to_answer_longer_each_time() -> None:
    """Down soon after its return, a backend needs twice the answers; a calm minute forgives it."""
    health, now, needed = Health(HealthRules(rise=2), 0.0), 0.0, []
    health.observe(Observation.ANSWERED, now)
    for calm in (0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 100.0, 1.0):
        now += calm
        health.observe(Observation.REFUSED, now)
        answers = 0
        while health.verdict is not Verdict.HEALTHY:
            now += 0.5
            answers += 1
            health.observe(Observation.ANSWERED, now)
        needed.append(answers)
    assert needed == [2, 4, 8, 16, 32, 32, 2, 4]
