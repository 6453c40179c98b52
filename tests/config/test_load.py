"""What a configuration means when nothing is wrong with it, and where it is read from."""

import ipaddress
from pathlib import Path

import pytest
from pydantic import ValidationError

from proxy.config import Address, BackendSettings, Config, ConfigError, Problem, load, loads
from proxy.config.models import AdminSettings
from proxy.config.values import HandOver, Locate

ENVIRON = {"HOST": "10.1.2.3", "PORT": "8001", "NUMBER": "0.5", "FLAG": "false", "EMPTY": ""}


def test_the_defaults_are_those_of_the_design() -> None:
    """An empty file is a whole configuration."""
    config = loads("")
    assert config == Config() == loads("{}") == loads("# nothing\n")
    assert config.listen == (Address("0.0.0.0", 8000),)
    assert config.admin.listen == Address("127.0.0.1", 9901)
    assert (config.admin.token, config.affinity.secret) == (None, None)
    assert config.socketio_path == ("/ws/socket.io",)
    assert (config.affinity.cookie.name, config.affinity.cookie.enabled) == ("chainlit_pin", True)
    assert (config.affinity.locate, config.affinity.locate_timeout) == (Locate.AUTO, 2)
    assert (config.affinity.hand_over, config.affinity.hold) == (HandOver.AUTO, 10)
    assert (config.affinity.session_timeout, config.affinity.directory.size) == (3600, 100_000)
    assert (config.balance.bound, config.balance.slow_start) == (1.25, 10)
    assert list(config.health.model_dump().values()) == [
        "http",
        "/health",
        None,
        ("200-399",),
        None,
        2,
        2,
        3,
        2,
        45,
        None,
    ]
    assert list(config.timeouts.model_dump().values()) == [2, 10, 75, 300, 60, 60, 90, 4, 300, 30, 0, 45, 0]
    assert (config.limits.head, config.limits.inspect) == (32_768, 1_048_576)
    assert [str(network) for network in config.forwarded.trusted] == ["127.0.0.1/32", "::1/128"]
    assert (config.log.format, config.log.access, config.log.level) == (
        "console",
        True,
        "info",
    )


def test_defaults_stand_where_the_text_is_silent() -> None:
    """Key by key, at any depth; what the text has stays, and so does what the command line has."""
    defaults = {"listen": "127.0.0.1:1", "log.access": False}
    config = loads("log: {format: json}", defaults=defaults, changes={"admin.listen": None})
    assert (config.listen, config.log.access) == ((Address("127.0.0.1", 1),), False)
    assert config.log.format == "json"
    assert config.admin == AdminSettings()
    config = loads("listen: 127.0.0.1:2\nlog: {access: true}", defaults=defaults)
    assert (config.listen, config.log.access) == ((Address("127.0.0.1", 2),), True)
    config = loads("listen: 127.0.0.1:2", defaults=defaults, changes={"listen": "127.0.0.1:3"})
    assert config.listen == (Address("127.0.0.1", 3),)


def test_the_command_line_replaces_before_anything_is_compared() -> None:
    """What only collides in the file is no mistake; a mistake of an option is not told as one of the file."""
    text = "listen: 127.0.0.1:9000\nadmin: {listen: 127.0.0.1:9000}"
    assert loads(text, changes={"listen": "127.0.0.1:9001"}).listen == (Address("127.0.0.1", 9001),)
    with pytest.raises(ConfigError) as error:
        loads("log: 5\n", name="run.yaml", defaults={"log.access": False}, changes={"listen": "here"})
    listen, log = sorted(error.value.problems, key=lambda problem: problem.key)
    assert (listen.file, listen.line, listen.key) == ("command line", None, "listen")
    assert (log.file, log.line, log.key) == ("run.yaml", 1, "log")


def test_a_value_alone_is_a_list_of_one() -> None:
    """`listen`, `socketio_path` and `forwarded.trusted` take one value or several."""
    assert loads("affinity: {roots: /a/}").affinity.roots == ("/a",)
    assert loads("affinity: {roots: [/, /a]}").affinity.roots == ("/", "/a")
    one = loads("listen: 127.0.0.1:80\nsocketio_path: /a/\nforwarded: {trusted: 10.0.0.1}")
    assert one == loads("listen: ['127.0.0.1:80']\nsocketio_path: [/a]\nforwarded: {trusted: [10.0.0.1/32]}")
    assert one.forwarded.trusted == (ipaddress.ip_network("10.0.0.1/32"),)
    assert loads("forwarded: {trusted: []}").forwarded.trusted == ()


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("127.0.0.1:0", Address("127.0.0.1", 0), True),
        ("localhost:80", Address("localhost", 80), True),
        ("app-1.example:65535", Address("app-1.example", 65535), False),
        ("[::1]:80", Address("::1", 80), True),
        ("[::]:80", Address("::", 80), False),
        ("unix:/run/a b.sock", Address(path="/run/a b.sock"), True),
    ],
)
def test_an_address_is_read_and_written_the_same(text: str, address: Address, *, loopback: bool) -> None:
    """`str` of an address is what was read."""
    parsed = Address.parse(text)
    assert (parsed, str(parsed), parsed.is_loopback, parsed.is_unix) == (
        address,
        text,
        loopback,
        text.startswith("unix"),
    )


def test_a_backend_is_its_url_alone() -> None:
    """Its name is host:port, as without `name` in a mapping, so its pins stay; the two may be mixed."""
    bare = loads("backends: ['http://A.b:1', 'http+unix:///run/c.sock', {url: 'http://[::1]:2', name: x}]")
    assert bare == loads(
        "backends: [{url: 'http://a.b:1'}, {url: 'http+unix:///run/c.sock'}, "
        "{url: 'http://[::1]:2', name: x}]"
    )
    assert [backend.name for backend in bare.backends] == ["a.b:1", "c", "x"]


@pytest.mark.parametrize(
    ("backends", "mistake"),
    [
        (
            "- b\n- http://a:1",
            "2: backends[0]: must be a url such as http://127.0.0.1:8001, or a mapping with a url (got text)",
        ),
        ("- http://a:1/x", "2: backends[0].url: must end after the port"),
        (
            "- http://a:1\n- http://a:1",
            '3: backends[1].url: must differ from that of backends[0] (got "http://a:1")',
        ),
        (
            "- http://a:1\n- https://a:1",
            "3: backends[1].name: is made from the url, and must differ from that of backends[0]: give it",
        ),
    ],
)
def test_a_bare_url_that_cannot_be_a_backend(backends: str, mistake: str) -> None:
    """Two with one name are one mistake, even where both were made from urls that differ."""
    with pytest.raises(ConfigError) as error:
        loads(f"backends:\n{backends}")
    (problem,) = error.value.problems
    assert str(problem).startswith(f"config:{mistake}")


@pytest.mark.parametrize("text", [":8000", "'*:8000'"])
def test_an_address_without_a_host_is_every_interface(text: str) -> None:
    """For clients, beside TLS too, and for operators where they need a token."""
    everywhere = Address("0.0.0.0", 8000)
    assert loads(f"listen: {text}").listen == (everywhere,)
    assert loads("", changes={"listen": [text.strip("'")]}).listen == (everywhere,)
    admin = loads(f"admin: {{token: x, listen: '{text.strip(chr(39))}'}}\nlisten: 127.0.0.1:1").admin
    assert admin.listen == everywhere
    with pytest.raises(ConfigError):
        loads("backends: [{url: 'http://:80', name: a}]")
    assert Address.parse_door("http://:80") == Address("0.0.0.0", 80)


@pytest.mark.parametrize(
    ("one", "other", "collide"),
    [
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "[::1]:80", False),
        ("[::]:80", "[::1]:80", True),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "0.0.0.0:0", False),
    ],
)
def test_addresses_collide_only_for_certain(one: str, other: str, *, collide: bool) -> None:
    """Two that may be bound together are not refused, and the order does not matter."""
    assert Address.parse(one).collides_with(Address.parse(other)) is collide
    assert Address.parse(other).collides_with(Address.parse(one)) is collide


@pytest.mark.parametrize(
    ("listen", "backend", "answers"),
    [
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "localhost:80", True),
        ("0.0.0.0:80", "0.0.0.0:80", True),
        ("0.0.0.0:80", "[::1]:80", False),
        ("[::]:80", "127.0.0.1:80", True),
        ("[::]:80", "[::1]:80", True),
        ("127.0.0.1:80", "0.0.0.0:80", True),
        ("127.0.0.1:80", "LOCALHOST.:80", True),
        ("localhost:80", "[::1]:80", True),
        ("[::1]:80", "127.0.0.1:80", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("10.0.0.1:80", "127.0.0.1:80", False),
        ("10.0.0.1:80", "10.0.0.1:80", True),
        ("Chat.example:80", "chat.example.:80", True),
        ("0.0.0.0:80", "chat.example:80", False),
        ("0.0.0.0:80", "127.0.0.1:81", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "127.0.0.1:80", False),
    ],
)
def test_a_listener_answers_for_certain(listen: str, backend: str, *, answers: bool) -> None:
    """Who connects from this machine meets the listener; names other than localhost are not resolved."""
    assert Address.parse(listen).answers(Address.parse(backend)) is answers


@pytest.mark.parametrize(
    ("url", "kept", "host", "port", "name"),
    [
        ("http://127.0.0.1:8001", "http://127.0.0.1:8001", "127.0.0.1", 8001, "127.0.0.1:8001"),
        ("HTTP://App-1.Example:80/", "http://app-1.example:80", "app-1.example", 80, "app-1.example:80"),
        ("http://[::1]:8001", "http://[::1]:8001", "::1", 8001, "::1:8001"),
        ("http://App-1.Example.:80/", "http://app-1.example.:80", "app-1.example.", 80, "app-1.example:80"),
    ],
)
def test_a_backend_is_named_after_its_url(url: str, kept: str, host: str, port: int, name: str) -> None:
    """The url is kept in one form; without a name the backend has host:port of it."""
    (backend,) = loads(f"backends: [{{url: '{url}'}}]").backends
    assert (backend.url, backend.address.host, backend.address.port, backend.name, backend.weight) == (
        kept,
        host,
        port,
        name,
        1,
    )


@pytest.mark.parametrize(
    "name",
    ["a", "a.b", "a.b.", "A-1", "my_app-1", "_http._tcp.a", "a" * 63, ("a" * 63 + ".") * 3 + "a" * 61, "1a"],
)
def test_a_name_that_can_be_looked_up(name: str) -> None:
    """Labels of 1 to 63 characters, 253 together, and a dot at the end if one likes: in every place."""
    name.encode("idna")  # as getaddrinfo has it
    assert Address.parse(f"{name}:80").host == name
    assert loads(f"backends: [{{url: 'http://{name}:80', name: a}}]").backends[0].address.host == name.lower()


@pytest.mark.parametrize(
    "name",
    [
        ".",
        "a..b",
        ".a",
        "a..",
        "-a",
        "a-",
        "a.-b",
        "a-.b",
        "a" * 64,
        ("a" * 63 + ".") * 3 + "a" * 62,
        "a b",
        "\u00e9",
    ],
)
def test_a_name_that_cannot_be_looked_up(name: str) -> None:
    """It is refused where it is read, not where it is resolved."""
    for text in (f"listen: '{name}:80'", f"backends: [{{url: 'http://{name}:80', name: a}}]"):
        with pytest.raises(ConfigError):
            loads(text)


def test_text_is_taken_as_it_is_written() -> None:
    """Where text is asked for, a number keeps its zeros and a yes is no flag."""
    config = loads(
        "backends: [{name: 007, url: 'http://a:1'}]\nadmin: {token: 0123}\naffinity: {secret: 2001-01-01}"
    )
    assert config.backends[0].name == "007"
    assert config.admin.token
    assert config.admin.token[0].get_secret_value() == "0123"
    assert config.affinity.secret
    assert [secret.get_secret_value() for secret in config.affinity.secret] == ["2001-01-01"]
    assert loads("affinity: {cookie: {name: yes}}").affinity.cookie.name == "yes"


def test_variables_are_read_from_the_environment_in_every_style() -> None:
    """Plain values get the type that their text has; braces need no quotes, not even between braces."""
    config = loads(
        """
listen: ["127.0.0.1:${PORT}", '${HOST}:1${PORT}']
backends:
- {url: http://${HOST}:${PORT}, weight: ${NUMBER}, name: ${NAME:-x}-${PORT}}
health: {interval: ${NUMBER}, path: ${UNSET:-/a,b}}
log: {access: ${FLAG}, level: ${EMPTY:-error}}  # ${UNSET} in a comment is nothing
admin: {token: ${EMPTY:-}, listen: ${UNSET:-127.0.0.1:1}}
affinity:
  secret: |-
    ${HOST} $${HOST} $HOST $$
""",
        environ=ENVIRON,
    )
    assert config.listen == (Address("127.0.0.1", 8001), Address("10.1.2.3", 18001))
    assert config.backends == (BackendSettings(name="x-8001", url="http://10.1.2.3:8001", weight=0.5),)
    assert (config.health.interval, config.health.path) == (0.5, "/a,b")
    assert (config.log.access, config.log.level) == (False, "error")
    assert (config.admin.token, config.admin.listen) == (None, Address("127.0.0.1", 1))
    assert config.affinity.secret
    assert config.affinity.secret[0].get_secret_value() == "10.1.2.3 ${HOST} $HOST $$"


def test_a_variable_cannot_add_yaml() -> None:
    """What a variable holds is one value, whatever it looks like, and is not searched for variables."""
    environ = {"EVIL": "a\nadmin: {listen: 0.0.0.0:1, token: x}", "NESTED": "${EVIL}", "LIST": "[1, 2]"}
    config = loads("affinity: {secret: ${EVIL}}", environ=environ)
    assert config.affinity.secret
    assert config.affinity.secret[0].get_secret_value() == environ["EVIL"]
    assert config.admin == AdminSettings()
    nested = loads("affinity: {secret: ${NESTED}}", environ=environ).affinity.secret
    assert nested
    assert nested[0].get_secret_value() == "${EVIL}"
    with pytest.raises(ConfigError, match="must be a duration"):
        loads("health: {interval: ${LIST}}", environ=environ)


def test_the_environment_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `environ`, `os.environ` is read at each call."""
    monkeypatch.setenv("PROXY_TEST_LEVEL", "debug")
    assert loads("log: {level: ${PROXY_TEST_LEVEL}}").log.level == "debug"


def test_anchors_and_merge_keys_work() -> None:
    """A mapping's own keys win over merged ones, and the first merged over the later."""
    config = loads(
        """
backends:
- &first {url: http://a:1, weight: 3}
- {<<: *first, url: http://b:1}
- {<<: [{url: http://c:1}, *first]}
health: {interval: &two 2.5, timeout: *two}
"""
    )
    assert [(backend.url, backend.weight) for backend in config.backends] == [
        ("http://a:1", 3),
        ("http://b:1", 3),
        ("http://c:1", 3),
    ]
    assert config.health.timeout == config.health.interval == 2.5


def test_a_section_without_content_has_its_defaults() -> None:
    """A section whose keys are all commented out is not a mistake."""
    assert loads("health:\n  # interval: 2\nadmin: ~\naffinity:\n  cookie:\nbackends:\n") == Config()


def test_a_config_cannot_be_changed() -> None:
    """It is frozen all the way down and can be a key."""
    config = loads("backends: [{url: http://a:1}]")
    with pytest.raises(ValidationError):
        config.health.interval = 3
    assert {config: 1}[loads("backends: [{url: http://a:1}]")] == 1


def test_models_made_in_code_keep_the_same_rules() -> None:
    """The rules over several keys of a section are the models' own, not only those of a file."""
    with pytest.raises(ValidationError, match=r"admin\.token is not set"):
        AdminSettings(listen=Address("10.0.0.1", 1))
    backend = BackendSettings(url="http://a:1")
    assert Config(backends=(backend,)).backends[0] is backend


def test_a_file_is_read(tmp_path: Path) -> None:
    """A byte order mark and Windows' line ends are fine, and the file's name is in each problem."""
    path = tmp_path / "proxy.yaml"
    path.write_bytes(b"\xef\xbb\xbflog:\r\n  level: debug\r\n")
    assert load(path).log.level == "debug"
    path.write_text("log:\n  level: loud\n")
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    assert str(caught.value).startswith(f"{path}:2: log.level: must be one of")


def test_a_file_that_cannot_be_read_is_a_mistake(tmp_path: Path) -> None:
    """A missing file, a directory and bytes that are no text are told like any other mistake."""
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"log: {}\nlisten: \xff\n")
    expected = {
        tmp_path / "none.yaml": Problem(
            f"{tmp_path}/none.yaml", None, "", "cannot be read: No such file or directory"
        ),
        tmp_path: Problem(str(tmp_path), None, "", "cannot be read: Is a directory"),
        binary: Problem(str(binary), 2, "", "is not valid YAML: it is not UTF-8 text"),
    }
    for path, problem in expected.items():
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert caught.value.problems == (problem,)
