"""The effective configuration can be read again and is the same."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import Config, dump, loads
from proxy.config.fields import KEYS

NUMBERS = st.floats(min_value=1e-6, max_value=1e9)
HOSTS = st.sampled_from(["127.0.0.1", "[::1]", "app.example", "0.0.0.0"])
PATHS = st.text("abc/._~!$&'()*+,;=:@%-", min_size=1, max_size=20).map(lambda text: f"/a{text}b")
CONFIGS = st.builds(
    Config.model_validate,
    st.fixed_dictionaries(
        {
            "listen": st.lists(HOSTS.map(lambda host: f"{host}:0"), min_size=1, max_size=3),
            "backends": st.lists(
                st.fixed_dictionaries(
                    {"url": st.integers(1, 65535).map(lambda port: f"http://[::1]:{port}")},
                    optional={"weight": st.floats(min_value=1e-3, max_value=100)},
                ),
                max_size=4,
                unique_by=lambda backend: str(backend["url"]),
            ),
            "socketio_path": st.lists(PATHS, min_size=1, max_size=3, unique=True),
            "health": st.fixed_dictionaries(
                {
                    "interval": NUMBERS,
                    "path": PATHS,
                    "type": st.sampled_from(["http", "none", "tcp", "engineio"]),
                }
            ),
            "affinity": st.fixed_dictionaries(
                {
                    "cookie": st.fixed_dictionaries(
                        {
                            "name": st.text("aeno0156~.!#$%&'*+^_`|-", min_size=1, max_size=8),
                            "enabled": st.booleans(),
                        }
                    )
                }
            ),
            "forwarded": st.fixed_dictionaries(
                {"trusted": st.lists(st.ip_addresses().map(str), max_size=3, unique=True)}
            ),
        }
    ),
)


@given(CONFIGS)
def test_a_printed_configuration_reads_as_the_same(config: Config) -> None:
    """Without secrets, `loads` undoes `dump`, also for names that look like numbers, flags or null."""
    assert loads(dump(config), environ={}) == config


def test_what_looks_like_a_variable_is_escaped() -> None:
    """A value that holds a plain ${ does not read the environment when it is read again."""
    config = loads("listen: 'unix:/run/$${NAME}.sock'")
    assert config.listen[0].path == "/run/${NAME}.sock"
    assert loads(dump(config), environ={}) == config


@pytest.mark.parametrize("notice", ["$NAME is cut", "it's $NAME", "***", "no", "", "1e3", "- a\n- b: ${c}\n"])
def test_any_text_is_printed_as_one(notice: str) -> None:
    """What looks like a variable, a secret or another type is read again as the same text."""
    config = Config.model_validate({"sessions": {"notice": notice}})
    assert loads(dump(config), environ={}) == config


def test_every_key_is_printed_in_the_order_of_the_reference() -> None:
    """Nothing is left out because it is a default."""
    lists = "backends: [{url: http://a:1}]\ntls: {certificates: [{cert: a, key: b}]}"
    printed = yaml.safe_load(dump(loads(lists)))
    for key in KEYS.values():
        place = printed
        for part in key.path[:-1]:
            place = place[part][0] if part in {"backends", "certificates"} else place[part]
        assert key.path[-1] in place
    assert list(printed) == [path[0] for path, key in KEYS.items() if len(path) == 1]
    assert sum(key.is_secret for key in KEYS.values()) == 7
