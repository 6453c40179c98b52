"""A secret is never shown: not in a message, not in the effective configuration, not in a repr."""

import json
import traceback

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.config import Config, ConfigError, dump, loads

# Stands in the middle of every secret, so that a part of one is seen as well, and nowhere else.
MARK = "hUsH"


def secrets(alphabet: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return secrets of some characters around the mark."""
    part = st.text(alphabet, max_size=8)
    return st.builds(lambda before, after: before + MARK + after, part, part)


# Without $, which could make a variable of it, and without : or braces, which could make it a key: those are
# named in messages.
VISIBLE = secrets(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="$:"))
WORD = secrets(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="$:{}?"))
ANY = secrets(st.characters(exclude_categories=["Cs"], exclude_characters="$"))

IN_PLACE = [
    "admin: {{token: {0}}}",
    "admin: {{token: {0}, listen: 0.0.0.0:1}}\nlisten: here",
    "admin:\n  token: {0}\n",
    "admin:\n  token:\n    {0}\n  tokn: x",
    "admin: {{token: [{0}]}}",
    "admin: {{token: {{ {0} }}}}",
    "admin: {{token: {{{{ {0} }}}}}}",
    "admin: {{token: [older, {0}], hook_token: {0}}}",
    "health: {{secret: {0}, path: x}}",
    "affinity: {{secret: {0}, locate: x}}",
    "affinity: {{secret: {{a: {0}}}}}",
    "affinity: {{secret: [{0}, {0}]}}",
    "affinity: {{secret: [older, {0}]}}\nlisten: here",
    "affinity:\n  secret:\n  - older\n  - {0}\n",
    "affinity: {{secret: [older, [{0}]]}}",
    "affinity: {{secret: [older, {{ {0} }}]}}",
    "affinity: {{directory: {{redis: {0}}}}}",
    "affinity:\n  directory:\n    redis: redis://:{0}",
    "sessions: {{store: {0}}}",
    "sessions:\n  store: redis://{0}@cache",
    "sessions: {{store: [{0}]}}",
]
OUT_OF_PLACE = [
    "admin: {0}",
    "affinity: {0}",
    "backends: [{{url: 'http://a:1', name: a}}, {0}]",
    "{0}",
    "- {0}",
]
SIGNS = st.sampled_from(["{}", "*{}", "!{}", "&{}", "'{}", "@{}", '"\\{}', "|{}", "{},", "a,{}", "%{}"])
UNQUOTED = st.one_of(
    st.tuples(VISIBLE, st.sampled_from(IN_PLACE)), st.tuples(WORD, st.sampled_from(OUT_OF_PLACE))
)


def shown(text: str, environ: dict[str, str]) -> str:
    """Return all that can be seen of a text: messages and traceback, or the configuration in every form."""
    try:
        config = loads(text, environ=environ)
    except ConfigError as error:
        return "".join(traceback.format_exception(error)) + repr(error.__context__) + repr(error)
    return dump(config) + repr(config) + str(config) + repr(config.model_dump()) + config.model_dump_json()


@given(UNQUOTED, SIGNS)
@example(("aahUsHbb", IN_PLACE[0]), "a,{}")
@example(("}hUsH{", IN_PLACE[0]), "{}")
@example((",hUsH:", IN_PLACE[0]), "{}")
@example(("a:hUsH:b", IN_PLACE[0]), "{}")
def test_no_message_repeats_a_secret_that_is_not_quoted(secret_at: tuple[str, str], sign: str) -> None:
    """Whatever YAML makes of it: an alias, a tag, half a mapping, a syntax error."""
    secret, place = secret_at
    assert MARK not in shown(place.format(sign.format(secret)), {})


@given(ANY, st.sampled_from(IN_PLACE + OUT_OF_PLACE), st.sampled_from(["{}", "*{}", "{}\n", "# {}", "a: {}"]))
def test_no_message_repeats_a_secret_that_is_quoted(secret: str, place: str, form: str) -> None:
    """A quoted secret is seen nowhere, not even in part."""
    assert MARK not in shown(place.format(json.dumps(form.format(secret))), {})


@given(ANY, st.sampled_from(["${S}", "'${S}'", "x${S}", "${S}${MISSING}"]))
def test_no_message_repeats_a_secret_from_the_environment(secret: str, written: str) -> None:
    """A variable's name may be told, what it holds may not."""
    for key in (
        "admin: {token: %s}",
        "affinity: {secret: %s}",
        "affinity: {secret: [a, %s]}",
        "admin: {token: [%s]}",
        "admin: %s",
    ):
        assert MARK not in shown(key % written, {"S": secret})


@given(VISIBLE)
def test_the_effective_configuration_masks_secrets(secret: str) -> None:
    """A secret that is set is three stars in double quotes, one that is not is null."""
    config = loads(f"admin: {{token: {json.dumps(secret)}}}\naffinity: {{secret: {json.dumps(secret)}}}")
    assert config.admin.token
    assert config.admin.token[0].get_secret_value() == secret
    printed = dump(config)
    assert printed.count('"***"') == 2
    assert MARK not in printed
    assert yaml.safe_load(dump(Config()))["admin"]["token"] is None


def test_every_secret_of_a_list_is_masked() -> None:
    """The effective configuration shows how many secrets there are, and none of them."""
    config = loads("affinity: {secret: [hUsH-new, hUsH-old]}")
    assert yaml.safe_load(dump(config))["affinity"]["secret"] == ["***", "***"]
    assert dump(config).count('"***"') == 2
    assert MARK not in dump(config) + repr(config) + config.model_dump_json()
    assert [secret.get_secret_value() for secret in config.affinity.secret or ()] == ["hUsH-new", "hUsH-old"]


@pytest.mark.parametrize(
    "store",
    [
        "redis://:hunter2@cache:6379/1",
        "redis://u:p@hunter2@cache",
        "rediss://user:hunter2@cache",
        "redis://cache?password=hunter2",
        "unix://:hunter2@/s",
        "unix:///s?password=hunter2",
    ],
)
def test_the_password_of_a_store_is_masked(store: str) -> None:
    """The url of `sessions.store` is a secret in whatever form, and the mask is none."""
    text = f"sessions: {{store: '{store}'}}"
    assert "hunter2" not in shown(text, {}) + str(loads(text).sessions.store)
    printed = dump(loads(text))
    assert 'store: "***"' in printed
    with pytest.raises(ConfigError, match="not the mask"):
        loads(printed)


@pytest.mark.parametrize(
    "store",
    ["postgres://hunter2@db", "redis://", "REDIS://:hunter2@db", "sqlite:relative", "http://[hunter2"],
)
def test_a_store_that_is_none_is_refused_without_repeating_it(store: str) -> None:
    """What is allowed is said; what was given may hold a password."""
    with pytest.raises(ConfigError, match=r"sessions\.store: must be sqlite, ") as caught:
        loads(f"sessions: {{store: '{store}'}}")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("text", "shared"), [("auto", "auto"), ("true", True), ("false", False)])
def test_sharing_is_a_choice_of_three(text: str, shared: object) -> None:
    """`sessions.shared` takes true and false as YAML has them, and is printed so."""
    config = loads(f"sessions: {{shared: {text}}}")
    assert config.sessions.shared == shared
    assert f"shared: {text}\n" in dump(config)


@pytest.mark.parametrize("key", ["listen", "timeouts: {idle", "log: {level", "sessions: {files"])
def test_a_url_with_a_password_is_shown_at_no_key(key: str) -> None:
    """It may be a secret that was put at the wrong key."""
    end = "}" if "{" in key else ""
    with pytest.raises(ConfigError) as caught:
        loads(f'{key}: "redis://user:s3cret@host:6379\\n"{end}\nwrong: 1\n')
    assert "s3cret" not in str(caught.value)
