"""Every mistake in a configuration: its line, its key and its words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import ConfigError, Problem, loads
from tests.config import https_mistakes, syntax_mistakes
from tests.config.https_mistakes import DOORS, LISTEN

ENVIRON = {"EMPTY": "", "WORD": "fast"}
BACKEND = "backends: [{name: a, url: 'http://127.0.0.1:8001'}]\n"


def mistakes(text: str, *, need_backends: bool = False) -> tuple[Problem, ...]:
    """Return the problems of a text that must have some."""
    with pytest.raises(ConfigError) as caught:
        loads(text, name="proxy.yaml", need_backends=need_backends, environ=ENVIRON)
    assert str(caught.value).splitlines() == [str(problem) for problem in caught.value.problems]
    return caught.value.problems


ONE = "a url such as http://127.0.0.1:8001, or a mapping with a url"
DURATION = "must be a duration such as 30s, 5m or a number of seconds"
SIZE = "must be a size such as 512k, 10MB or a number of bytes"
STATUSES = "a status such as 204, a range such as 200-399 or a class such as 2xx"
NAMES = (
    "a host name is labels of 1 to 63 letters, digits, - and _ with dots between them, at most 253 characters"
)
TOP = (
    "listen, socket, reuse_port, admin, backends, discovery, socketio_path, affinity, balance, health, "
    "timeouts, limits, forwarded, log, otel, replicas, responses, sessions, tls, websocket"
)
NOT_LOOPBACK = "must be a loopback address such as 127.0.0.1:9901, because admin.token is not set"

# text, line, key, message
TABLE = [
    # keys
    ("health:\n  intervall: 2", 2, "health.intervall", ("unknown key, did you mean 'interval'?")),
    ("\nssl: {cert: a}", 2, "ssl", f"unknown key. Allowed here: {TOP}"),
    ("discovery:\n  nomad: x", 2, "discovery.nomad",
     "unknown key. Allowed here: file, dns, kubernetes, docker"),
    ("log: {on: true}", 1, "log.on", "unknown key. Allowed here: format, access, level"),
    ("'a\\b c': 1", 1, '"a\\\\b c"', f"unknown key. Allowed here: {TOP}"),
    ("backends:\n- url: http://a:1\n  wait: 2", 3, "backends[0].wait",
     "unknown key, did you mean 'weight'?"),
    ("health:\n  fall: 2\n  rise: 2\n  fall: 3", 4, "health.fall", "is given twice, first on line 2"),
    ("log:\n  ? [a]\n  : b", 2, "log",
     "must have text as its keys; put a value that starts with { or [ in quotes"),
    # the whole file
    ("- listen", 1, "", "must be a mapping of keys to values (got a list)"),
    ("listen", 1, "", "must be a mapping of keys to values (got text)"),
    # sections
    ("health: fast", 1, "health", "must be a mapping of keys to values (got text)"),
    ("affinity:\n  cookie: [a]", 2, "affinity.cookie", "must be a mapping of keys to values (got a list)"),
    ("backends: {name: a}", 1, "backends",
     ("must be a list of urls such as - http://127.0.0.1:8001, or of mappings such as "
      '- {name: a, url: "http://127.0.0.1:8001"} (got a mapping)')),
    ("backends:\n- [a]", 2, "backends[0]", f"must be {ONE} (got a list)"),
    ("backends:\n-", 2, "backends[0]", f"must be {ONE} (got nothing)"),
    ("backends:\n- 127.0.0.1:8001", 2, "backends[0]", f"must be {ONE} (got text)"),
    # a collector of spans
    ("otel: {endpoint: 'collector:4318'}", 1, "otel.endpoint",
     'must be an http or https URL such as http://127.0.0.1:4318/v1/traces (got "collector:4318")'),
    ("otel: {endpoint: 'https://me:key@host/v1/traces'}", 1, "otel.endpoint",
     "must hold no name, password or query: those go into OTEL_EXPORTER_OTLP_HEADERS"),
    ("otel: {sample: 1.5}", 1, "otel.sample", "must be a number from 0 to 1 (got 1.5)"),
    # numbers and choices
    ("health:\n  interval: fast", 2, "health.interval", f'{DURATION}, greater than 0 (got "fast")'),
    ("health:\n  interval: ${WORD}", 2, "health.interval", f'{DURATION}, greater than 0 (got "fast")'),
    ("health: {interval: 0}", 1, "health.interval", f"{DURATION}, greater than 0 (got 0)"),
    ("health: {interval: .inf}", 1, "health.interval", f"{DURATION}, greater than 0 (got inf)"),
    ("health: {interval: true}", 1, "health.interval", f"{DURATION}, greater than 0 (got true)"),
    ("health: {interval: }", 1, "health.interval", f"{DURATION}, greater than 0 (got nothing)"),
    ("health: {interval: [1]}", 1, "health.interval", f"{DURATION}, greater than 0 (got a list)"),
    ("health: {interval: '5'}", 1, "health.interval",
     f'{DURATION}, greater than 0 (got "5"); write it without quotes'),
    ("health: {fall: 1.5}", 1, "health.fall", "must be a whole number, 1 or greater (got 1.5)"),
    ("health: {type: https}", 1, "health.type",
     'must be one of http, engineio, tcp, none (got "https"), did you mean http?'),
    ("health: {path: health}", 1, "health.path",
     'must be a path that starts with /, without a query or spaces (got "health")'),
    ("health: {status: 700}", 1, "health.status", f'must be {STATUSES} (got "700")'),
    ("health: {status: [200, 30]}", 1, "health.status[1]", f'must be {STATUSES} (got "30")'),
    ("health: {status: 399-200}", 1, "health.status",
     'must begin with the lower status: 200-399 (got "399-200")'),
    ("health: {status: []}", 1, "health.status", f"must be {STATUSES}, or a list of them (got a list)"),
    ("health: {host: 'a b'}", 1, "health.host", 'must be a host name or an IP address (got "a b")'),
    ('health: {host: "a\\r\\nX: 1"}', 1, "health.host",
     'must be a host name or an IP address, with or without a port (got "a\\r\\nX: 1")'),
    ("timeouts: {shutdown: -1}", 1, "timeouts.shutdown", f"{DURATION}, 0 or greater (got -1)"),
    ("balance:\n  bound: 1", 2, "balance.bound", "must be a number greater than 1 (got 1)"),
    ("balance: {slow_start: -0.5}", 1, "balance.slow_start", f"{DURATION}, 0 or greater (got -0.5)"),
    ("limits: {head: 100}", 1, "limits.head", f"{SIZE}, 1024 or greater (got 100)"),
    ("limits: {opening_bytes: 9}", 1, "limits.opening_bytes",
     f"{SIZE}, 1024 or greater (got 9)"),
    ("limits: {inspect: 1 MBit}", 1, "limits.inspect", f'{SIZE}, 1 or greater (got "1 MBit")'),
    ("log: {access: 1}", 1, "log.access", "must be true or false (got 1)"),
    ("log: {level: WARN}", 1, "log.level",
     'must be one of debug, info, warning, error (got "WARN"), did you mean warning?'),
    ("log: {format: text}", 1, "log.format",
     'must be one of console, json (got "text"), did you mean console?'),
    ("log: {format: yes}", 1, "log.format", 'must be one of console, json (got "yes")'),
    ("affinity: {locate: ask}", 1, "affinity.locate", 'must be one of auto, always, never (got "ask")'),
    ("affinity:\n  directory:\n    size: 0", 3, "affinity.directory.size",
     "must be a whole number, 1 or greater (got 0)"),
    ("affinity: {cookie: {name: a b}}", 1, "affinity.cookie.name",
     'must be a cookie name: letters, digits and - _ . without spaces (got "a b")'),
    ("affinity: {cookie: {name: X-Chainlit-Session-id}}", 1, "affinity.cookie.name",
     'must not be the name of one of Chainlit\'s own cookies (got "X-Chainlit-Session-id")'),
    ("affinity: {cookie: {name: access_token_0}}", 1, "affinity.cookie.name",
     'must not be the name of one of Chainlit\'s own cookies (got "access_token_0")'),
    # addresses
    ("listen: :65536", 1, "listen", f'must be {LISTEN} (got ":65536")'),
    ("listen: '*'", 1, "listen", f'must be {LISTEN} (got "*")'),
    ("listen: 80", 1, "listen", ('must be ":80" for every interface, or "127.0.0.1:80" for this machine only '
     '(got "80")')),
    ("admin: {listen: ':9901'}", 1, "admin.listen", ("must be a loopback address such as 127.0.0.1:9901, "
     'because admin.token is not set (got "0.0.0.0:9901")')),
    ("discovery: {dns: {name: a, port: 1, servers: ':53'}}", 1, "discovery.dns.servers",
     'must be an IP address with its port such as 10.0.0.2:53 (got ":53")'),
    ("listen: localhost", 1, "listen", f'must be {LISTEN} (got "localhost")'),
    ("listen:\n- 127.0.0.1:1\n- 127.0.0.1:65536", 3, "listen[1]",
     f'must be {LISTEN} (got "127.0.0.1:65536")'),
    ("listen: 127.0.0.256:80", 1, "listen", f'must be {LISTEN} (got "127.0.0.256:80")'),
    ("listen: '::1:80'", 1, "listen", f'must be {LISTEN} (got "::1:80")'),
    ("listen: '[::g]:80'", 1, "listen", f'must be {LISTEN} (got "[::g]:80")'),
    ("listen: a..b:8000", 1, "listen", f'must be {LISTEN}; {NAMES} (got "a..b:8000")'),
    (f"listen: {'a' * 64}.b:80", 1, "listen", f'must be {LISTEN}; {NAMES} (got "{"a" * 60}...")'),
    ("listen: a-.b:80", 1, "listen", f'must be {LISTEN}; {NAMES} (got "a-.b:80")'),
    ("listen: .:80", 1, "listen", f'must be {LISTEN}; {NAMES} (got ".:80")'),
    ("listen: 127.0.0.1.:80", 1, "listen", f'must be {LISTEN} (got "127.0.0.1.:80")'),
    ("admin: {listen: 'a..b:9901', token: x}", 1, "admin.listen",
     f'must be {LISTEN}; {NAMES} (got "a..b:9901")'),
    ("backends:\n- url: http://a..b:80", 2, "backends[0].url",
     f'must be http://host:port, https://host:port or http+unix:///path; {NAMES} (got "http://a..b:80")'),
    ("discovery: {dns: {name: a..b, port: 1}}", 1, "discovery.dns.name",
     f'must be a host name or an IP address; {NAMES} (got "a..b")'),
    ("otel: {endpoint: 'http://a..b:4318/v1/traces'}", 1, "otel.endpoint",
     ('must be an http or https URL such as http://127.0.0.1:4318/v1/traces '
      '(got "http://a..b:4318/v1/traces")')),
    ("otel: {endpoint: 'http://a:99999/'}", 1, "otel.endpoint",
     'must be an http or https URL such as http://127.0.0.1:4318/v1/traces (got "http://a:99999/")'),
    ("affinity: {directory: {redis: 'redis://a..b:6379'}}", 1, "affinity.directory.redis",
     "must be redis://HOST:PORT, rediss://HOST:PORT or unix:///SOCKET"),
    ("sessions: {store: 'redis://:p@a..b:6379'}", 1, "sessions.store",
     "must be sqlite, sqlite:///FILE, redis://HOST:PORT, rediss://HOST:PORT or unix:///SOCKET"),
    ("listen: []", 1, "listen", f"must be {DOORS}, or a list of them (got a list)"),
    ("listen: {a: b}", 1, "listen", f"must be {DOORS}, or a list of them (got a mapping)"),
    ("listen: [[a]]", 1, "listen[0]", f"must be {DOORS} (got a list)"),
    ("listen: unix:run/a", 1, "listen",
     'must be unix: and the absolute path of a socket, as in unix:/run/proxy.sock (got "unix:run/a")'),
    (f"listen: unix:/{'a' * 110}", 1, "listen",
     "must have a shorter path: a unix socket's has at most 107 bytes"),
    ("listen: ['0.0.0.0:80', '127.0.0.1:80']", 1, "listen",
     "must not be taken twice: 127.0.0.1:80 and 0.0.0.0:80 cannot both be bound"),
    ("admin:\n  listen: 0.0.0.0:9901", 2, "admin.listen", f'{NOT_LOOPBACK} (got "0.0.0.0:9901")'),
    ("admin: {listen: 'app.example:9901', token: ~}", 1, "admin.listen",
     f'{NOT_LOOPBACK} (got "app.example:9901")'),
    ("listen: 127.0.0.1:80\nadmin:\n  listen: 127.0.0.1:80", 3, "admin.listen",
     "must be another address than that of listen, 127.0.0.1:80"),
    ("listen: 0.0.0.0:9901", 1, "admin.listen", "must be another address than that of listen, 0.0.0.0:9901"),
    # secrets
    ("admin: {token: ''}", 1, "admin.token", "must not be empty; leave the key out to have none"),
    ("admin: {token: a b}", 1, "admin.token", "must be visible ASCII characters without spaces or line ends"),
    ("admin: {token: [a, b c]}", 1, "admin.token[1]",
     "must be visible ASCII characters without spaces or line ends"),
    ("admin: {token: [a, a]}", 1, "admin.token", "must not hold a value twice"),
    ("admin: {hook_token: {a: b}}", 1, "admin.hook_token",
     "must be visible ASCII characters without spaces or line ends, or a list of them (got a mapping)"),
    ("admin: {hook_token: a}", 1, "admin.hook_token",
     "needs admin.token: without it everybody may do everything"),
    ("admin: {token: [b, a], hook_token: [c, a]}", 1, "admin.hook_token",
     "must be another token than admin.token, which may do everything"),
    ("health: {type: tcp, secret: x}", 1, "health.secret",
     "must be left out, unless health.type is http: no other probe can ask for it"),
    ("affinity: {secret: '***'}", 1, "affinity.secret",
     "must be the secret itself, not the mask that stands for one where it is printed"),
    ("affinity: {secret: [a, '***']}", 1, "affinity.secret[1]",
     "must be the secret itself, not the mask that stands for one where it is printed"),
    ("affinity:\n  secret:\n  - a\n  - ''", 4, "affinity.secret[1]",
     "must not be empty; leave the key out to have none"),
    ("affinity: {hold: 20}", 1, "affinity.hold",
     f"{DURATION}, from 0 to below the 20 after which Engine.IO's clients give up (got 20)"),
    ("affinity: {hand_over: often}", 1, "affinity.hand_over",
     'must be one of auto, always, never (got "often")'),
    ("affinity: {secret: [abc, abc]}", 1, "affinity.secret", "must not hold a value twice"),
    ("affinity: {secret: []}", 1, "affinity.secret",
     "must be text, or a list of one text or more, the newest first (got a list)"),
    ("affinity: {secret: [a, [b]]}", 1, "affinity.secret[1]",
     "must be text (got a list)"),
    ("affinity: {secret: {a: b}}", 1, "affinity.secret",
     "must be text, or a list of one text or more, the newest first (got a mapping)"),
    ("admin:\n  token: !secret abc", 2, "admin.token",
     "must have no YAML tag; put a value that starts with ! in quotes"),
    # backends
    ("backends:\n- name: a", 2, "backends[0].url",
     "is missing: it must be http://host:port, https://host:port or http+unix:///path"),
    ("backends:\n- url: ftp://a:1", 2, "backends[0].url",
     'must be http://host:port, https://host:port or http+unix:///path (got "ftp://a:1")'),
    ("backends:\n- url: a:1", 2, "backends[0].url",
     'must be http://host:port, https://host:port or http+unix:///path (got "a:1")'),
    ("backends:\n- url: http://a:1/chat", 2, "backends[0].url",
     ("must end after the port: the proxy passes paths through unchanged; to serve below a path, "
     'start Chainlit with --root-path (got "http://a:1/chat")')),
    ("backends:\n- url: http://a", 2, "backends[0].url",
     'must name the port, as in http://127.0.0.1:8001 (got "http://a")'),
    ("backends:\n- url: http://[::1]", 2, "backends[0].url",
     'must name the port, as in http://127.0.0.1:8001 (got "http://[::1]")'),
    ("backends:\n- url: http://a:0", 2, "backends[0].url",
     'must be http://host:port, https://host:port or http+unix:///path (got "http://a:0")'),
    ("backends:\n- url: http://a b:80", 2, "backends[0].url",
     'must be http://host:port, https://host:port or http+unix:///path (got "http://a b:80")'),
    ("backends:\n- url: http://me:word@a:1", 2, "backends[0].url",
     ("must be http://host:port, https://host:port or http+unix:///path without a user name, query "
     "or fragment")),
    ("backends:\n- {url: 'http://a:1', name: a b}", 2, "backends[0].name",
     'must be 1 to 63 letters, digits and . _ : - (got "a b")'),
    ("backends:\n- {url: 'http://a:1', weight: 101}", 2, "backends[0].weight",
     "must be a number greater than 0 and at most 100 (got 101)"),
    (f"{BACKEND}log: {{}}\nbackends: []", 3, "backends", "is given twice, first on line 1"),
    ("backends:\n- url: http://a:1\n- url: http://A:1/\n", 3, "backends[1].url",
     'must differ from that of backends[0] (got "http://a:1")'),
    ("backends:\n- {name: x, url: 'http://a:1'}\n- name: x\n  url: http://a:2", 3, "backends[1].name",
     'must differ from that of backends[0] (got "x")'),
    ("backends:\n- {name: 'b:1', url: 'http://a:1'}\n- url: http://b:1", 3, "backends[1].name",
     ("is made from the url, and must differ from that of backends[0]: give it a name of its own "
      '(got "b:1")')),
    ("backends:\n- url: http://a:8000\n- url: http://localhost:8000", 3, "backends[1].url",
     'must not be the proxy itself, which listens on 0.0.0.0:8000 (got "http://localhost:8000")'),
    ("backends:\n- url: http://127.0.0.1:9901", 2, "backends[0].url",
     'must not be the proxy itself, which listens on 127.0.0.1:9901 (got "http://127.0.0.1:9901")'),
    # paths and networks
    ("socketio_path: ws", 1, "socketio_path",
     'must be a path below /, such as /ws/socket.io, without a query or spaces (got "ws")'),
    ('socketio_path: "/ws "', 1, "socketio_path",
     'must be a path below /, such as /ws/socket.io, without a query or spaces (got "/ws ")'),
    ("socketio_path: [/ws/a, /]", 1, "socketio_path[1]",
     'must be a path below /, such as /ws/socket.io, without a query or spaces (got "/")'),
    ("affinity: {roots: chat}", 1, "affinity.roots",
     'must be a path that starts with /, without a query or spaces (got "chat")'),
    ("affinity:\n  roots: [/a, '/b c']", 2, "affinity.roots[1]",
     'must be a path that starts with /, without a query or spaces (got "/b c")'),
    ("affinity: {roots: [/a, /a/]}", 1, "affinity.roots", 'must not hold a value twice (got "/a")'),
    ("affinity: {locate_questions: 0}", 1, "affinity.locate_questions",
     "must be a whole number, 1 or greater (got 0)"),
    ("affinity: {locate_connections: many}", 1, "affinity.locate_connections",
     'must be a whole number, 1 or greater (got "many")'),
    ("limits: {packets: 0}", 1, "limits.packets", "must be a whole number, 1 or greater (got 0)"),
    ("socketio_path: [/a, /a/]", 1, "socketio_path", 'must not hold a value twice (got "/a")'),
    ("forwarded:\n  trusted:\n  - 10.0.0.0/8\n  - 10.0.0.1/8", 4, "forwarded.trusted[1]",
     'must not have host bits: the network is written 10.0.0.0/8 (got "10.0.0.1/8")'),
    ("forwarded:\n  trusted: []\n  hops: 2", 3, "forwarded.hops",
     "must be 0, because forwarded.trusted is empty: nobody is believed (got 2)"),
    ("forwarded: {hops: -1}", 1, "forwarded.hops", "must be a whole number, 0 or greater (got -1)"),
    ("forwarded: {trusted: '::ffff:10.0.0.1/104'}", 1, "forwarded.trusted",
     'must not have host bits: the network is written ::ffff:a00:0/104 (got "::ffff:10.0.0.1/104")'),
    ("forwarded: {proxy_protocol: v2}", 1, "forwarded.proxy_protocol", 'must be true or false (got "v2")'),
    ("forwarded: {trusted: all}", 1, "forwarded.trusted",
     'must be an IP address or network such as 10.0.0.0/8 (got "all")'),
    # variables
    ("log:\n  level: ${NAME}", 2, "log.level",
     "environment variable NAME is not set: export it, or write ${NAME:-...} with a default"),
    ("admin: {token: ${EMPTY}}", 1, "admin.token",
     "environment variable EMPTY is empty: export it, or write ${EMPTY:-} for none"),
    ("backends:\n- url: http://${HOST}:1", 2, "backends[0].url",
     "environment variable HOST is not set: export it, or write ${HOST:-...} with a default"),
    ("log:\n  level: a${1", 2, "log.level",
     "must write a variable as ${NAME} or ${NAME:-default}, and a plain ${ as $${"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "key", "message"), [*TABLE, *https_mistakes.TABLE, *syntax_mistakes.TABLE]
)
def test_a_mistake_names_its_line_its_key_and_what_is_allowed(
    text: str, line: int, key: str, message: str
) -> None:
    """One mistake makes one problem, and only that one."""
    assert mistakes(text) == (Problem("proxy.yaml", line, key, message),)


def test_all_mistakes_are_reported_at_once_in_the_order_of_their_lines() -> None:
    """No mistake hides another, be it of its own section or of a rule over several keys."""
    problems = mistakes(
        "listen: here\n"
        "admin:\n"
        "  listen: 0.0.0.0:1\n"
        "  tokn: abc\n"
        "backends:\n"
        "- {name: a, url: 'http://a:1', weight: x}\n"
        "- {name: a, url: 'http://a:1', wait: 1}\n"
        "- url: ${NAME}\n"
        "unknown: ${NAME}\n"
        "health:\n"
        "  fall: x\n"
        "  fall: 3\n"
        "  rise: ${WORD}\n"
    )
    assert [(problem.line, problem.key) for problem in problems] == [
        (1, "listen"),
        (3, "admin.listen"),
        (4, "admin.tokn"),
        (6, "backends[0].weight"),
        (7, "backends[1].wait"),
        (7, "backends[1].url"),
        (7, "backends[1].name"),
        (8, "backends[2].url"),
        (9, "unknown"),
        (9, "unknown"),
        (11, "health.fall"),
        (12, "health.fall"),
        (13, "health.rise"),
    ]


@pytest.mark.parametrize("text", ["", "backends:", "backends: []", "log: {}"])
def test_serve_needs_a_backend(text: str) -> None:
    """`need_backends` makes a file without one a mistake; nothing else does."""
    (problem,) = mistakes(text, need_backends=True)
    assert str(problem) == (
        "proxy.yaml:1: backends: must list at least one Chainlit instance, "
        "such as - url: http://127.0.0.1:8001; or set discovery"
    )
    assert loads(text).backends == ()


@pytest.mark.parametrize("text", ["[", "- a", "backends: x", "backends: ${NAME}"])
def test_a_missing_backend_is_no_second_mistake(text: str) -> None:
    """Where `backends` could not be read at all, that is the only thing that is said."""
    assert len(mistakes(text, need_backends=True)) == 1


NINE_TIMES_NINE = "a0: &a0 [x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
)


@pytest.mark.parametrize(
    "text",
    [
        "listen: " + "[" * 5000,
        "a: &a [*a]",
        "a: &a {b: {<<: *a}}",
        NINE_TIMES_NINE,
        f"a: &a {{{', '.join(f'k{n}: 1' for n in range(1000))}}}\nb: {{<<: [{', '.join(['*a'] * 5000)}]}}",
    ],
    ids=["deep", "alias", "merge", "growing", "merges"],
)
def test_a_file_that_has_no_end_is_one_mistake(text: str) -> None:
    """Deep nesting and aliases that contain themselves or grow without bound neither hang nor crash."""
    (problem,) = mistakes(text)
    assert problem.message == "holds over 100000 values, is nested too deeply, or an alias contains itself"


def test_a_problem_is_one_line_whatever_was_given() -> None:
    """Values and keys are escaped and shortened in messages."""
    problems = mistakes('log: {level: "a\\nb\\u2028c\\e"}\n"k\\nl": 1\nlisten: "' + "x" * 500 + '"\n')
    assert all(str(problem).isprintable() and len(str(problem)) < 250 for problem in problems)
    assert len(problems) == 3


KEYS_AND_VALUES = (
    "listen admin token backends url name health interval http://a:1 unix:/a 1 .inf true ~ / ---"
)
MARKS = ": |:|- |, |[|]|{|}|'|\"|#|?|\\|<<|&a |*a|!|!!int |${A}|${|\n|\n  |  |\0|\\ud800|\ud800|\ue000|\u00e9"
PIECES = [*KEYS_AND_VALUES.split(), *MARKS.split("|"), "|"]


@given(st.lists(st.sampled_from(PIECES) | st.characters(), max_size=30).map("".join))
def test_any_text_is_a_configuration_or_has_problems(text: str) -> None:
    """No text makes another error, and every problem is one printable line with the file's name."""
    problems: tuple[Problem, ...] = ()
    try:
        loads(text, name="proxy.yaml", environ=ENVIRON)
    except ConfigError as error:
        problems = error.problems
    assert all(str(problem).startswith("proxy.yaml:") for problem in problems)
    assert all(str(problem).isprintable() for problem in problems)
