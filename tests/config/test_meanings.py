"""Values that YAML or an eye takes for something else: which are refused, and what is said of them."""

import re

import pytest

from proxy.config import ConfigError, Problem, dump, loads
from tests.config.test_mistakes import DURATION, mistakes

DOLLAR = "in single quotes a $ is only a $"
COLON = 'a value that begins with : or [, as an IPv6 address, needs quotes: "[::]:8000"'

# text, line, key, message
TABLE = [
    # a variable without its braces
    ("admin:\n  token: $ADMIN_TOKEN", 2, "admin.token",
     "must write a variable as ${ADMIN_TOKEN}; " + DOLLAR),
    ('admin: {token: "$ADMIN_TOKEN"}', 1, "admin.token",
     "must write a variable as ${ADMIN_TOKEN}; " + DOLLAR),
    ("admin: {token: $hUsHhUsH}", 1, "admin.token",
     "must write a variable as ${NAME}; " + DOLLAR),
    ("affinity: {directory: {redis: 'redis://h', size: $SIZE}}", 1, "affinity.directory.size",
     "must write a variable as ${SIZE}; " + DOLLAR),
    ("sessions:\n  store: redis://:$PASSWORD@h", 2, "sessions.store",
     "must write a variable as ${NAME}; " + DOLLAR),
    ("backends:\n- url: http://$WORD:8001", 2, "backends[0].url",
     "must write a variable as ${WORD}; " + DOLLAR),
    # what YAML 1.1 takes for something else
    ("timeouts:\n  idle: 1:30", 2, "timeouts.idle",
     f'{DURATION}, greater than 0 (got "1:30"); write 90 for 90 seconds'),
    ("timeouts: {shutdown: 1:00:05}", 1, "timeouts.shutdown",
     f'{DURATION}, 0 or greater (got "1:00:05"); write 3605 for 3605 seconds'),
    ("timeouts: {idle: '1:30'}", 1, "timeouts.idle",
     f'{DURATION}, greater than 0 (got "1:30"); write 90 for 90 seconds'),
    ("limits: {burst: 1:30}", 1, "limits.burst", 'must be a whole number, 1 or greater (got "1:30")'),
    ("limits:\n  burst: 0400", 2, "limits.burst",
     'must be a whole number, 1 or greater (got "0400"); write 400'),
    ("limits: {burst: 0o400}", 1, "limits.burst", 'must be a whole number, 1 or greater (got "0o400")'),
    ("limits: {http2_streams: -0x" + "7" * 5000 + "}", 1, "limits.http2_streams",
     f"must be a whole number, 1 or greater (got -0x{'7' * 57}...)"),
    ("limits: {burst: 0b11}", 1, "limits.burst", 'must be a whole number, 1 or greater (got "0b11")'),
    ("limits: {burst: 1e3}", 1, "limits.burst", "must be a whole number, 1 or greater (got 1000.0)"),
    ("limits: {burst: 2001-01-01}", 1, "limits.burst",
     'must be a whole number, 1 or greater (got "2001-01-01")'),
    ("limits: {burst: \u0664\u0660}", 1, "limits.burst",
     'must be a whole number, 1 or greater (got "\u0664\u0660")'),
    ("limits: {burst: !!int '4'}", 1, "limits.burst",
     "must have no YAML tag; put a value that starts with ! in quotes"),
    ("log: {access: 'true'}", 1, "log.access", 'must be true or false (got "true"); write it without quotes'),
    ("health: {path: ~}", 1, "health.path",
     "must be a path that starts with /, without a query or spaces (got nothing)"),
    ("log: {}\nlisten: [::]:8000", 2, "",
     f"is not valid YAML: {COLON}"),
    ("admin: {listen: [::1]:9901}", 1, "",
     f"is not valid YAML: {COLON}"),
    ("backends: [{url: http://[::1]:8001}]", 1, "",
     "is not valid YAML: a { without its }, or a comma is missing; a value with [ or ] needs quotes"),
    ("listen: *:8000", 1, "",
     ("is not valid YAML: * begins an alias in YAML: for every interface write 0.0.0.0:8000, else put the "
      "value in quotes")),
    ("admin: {token: @abc}", 1, "", "is not valid YAML: a value that starts with @, % or ` needs quotes"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "key", "message"), TABLE)
def test_what_means_something_else_is_told(text: str, line: int, key: str, message: str) -> None:
    """One mistake makes one problem, which says what to write."""
    assert mistakes(text) == (Problem("proxy.yaml", line, key, message),)


@pytest.mark.parametrize(
    ("text", "number"),
    [("1_000", 1000), ("0x10", 16), ("+5", 5), (".5", 0.5), ("5.", 5), ("1e3", 1000), ("2.5E-1", 0.25)],
)
def test_a_number_may_be_written_so(text: str, number: float) -> None:
    """What can only be meant in one way is taken."""
    assert loads(f"health: {{interval: {text}}}").health.interval == number


@pytest.mark.parametrize("text", ["true", "True", "yes", "Yes", "on", "ON"])
def test_a_flag_may_be_written_so(text: str) -> None:
    """True and false have the words of all versions of YAML."""
    assert loads(f"responses: {{timing: {text}}}").responses.timing


def test_a_dollar_alone_is_one() -> None:
    """In single quotes and blocks, doubled, or before what no variable is called."""
    written = {"'$WORD'": "$WORD", "$$WORD": "$$WORD", "pa$word": "pa$word", "$2b$12$Ab": "$2b$12$Ab"}
    for text, value in written.items():
        token = loads(f"admin: {{token: {text}}}").admin.token
        assert token
        assert token[0].get_secret_value() == value


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.0.0.5", "10.0.0.5/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::/0", "::/0"),
        ("10.0.0.5", "10.0.0.5/32"),
    ],
)
def test_a_network_of_ipv4_is_one_however_it_is_written(written: str, meant: str) -> None:
    """Clients are known by their IPv4 address on listeners for both families too: else none would match."""
    config = loads(f"backends: [{{url: 'http://a:1'}}]\nforwarded: {{trusted: '{written}'}}")
    assert [str(network) for network in config.forwarded.trusted] == [meant]


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("4", 4, 4), ("2..8", 2, 8), ("'1..1'", 1, 1), ("256", 256, 256), ("1..256", 1, 256)],
)
def test_a_number_of_replicas_or_the_bounds_of_it(text: str, low: int, high: int) -> None:
    """As it is written; `check` prints it so that it can be read again."""
    count = loads(f"replicas: {{count: {text}}}").replicas.count
    assert (count.low, count.high) == (low, high)
    assert loads(dump(loads(f"replicas: {{count: {text}}}"))).replicas.count == count


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "must be a whole number from 1 to 256 such as 4, or a range of them such as 2..8 (got"),
        ("8..2", "must begin with the smaller number: 2..8"),
        ("2..", "must be a whole number from 1 to 256"),
        ("2-8", "must be a whole number from 1 to 256"),
        ("1..257", "must be a whole number from 1 to 256"),
        ("2.5", "must be a whole number from 1 to 256"),
        ("true", "must be a whole number from 1 to 256"),
        ("[2, 8]", "must be a whole number from 1 to 256"),
    ],
)
def test_wrong_bounds_are_told(text: str, message: str) -> None:
    """A number that is too small or too large, bounds the wrong way round, another spelling."""
    with pytest.raises(ConfigError, match=re.escape(f"replicas.count: {message}")):
        loads(f"replicas: {{count: {text}}}")
