"""Stores and folders of `run` that cannot be had are mistakes of the file, with their line."""

import os
from pathlib import Path

import pytest

from proxy.config import ConfigError, load

LONG = "x" * 300  # no file system takes it


def mistakes(folder: Path, text: str) -> list[str]:
    """What is wrong with a file of `run`."""
    file = folder / "run.yaml"
    file.write_text(text)
    try:
        load(file, need_store=True)
    except ConfigError as error:
        return [f"{problem.line} {problem.key}: {problem.message}" for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("folder", "{0}/folder is not a file"),
        ("plain/sessions.db", "{0}/plain is not a folder"),
        (f"{LONG}/sessions.db", "File name too long"),
        (LONG, "File name too long"),
        pytest.param(
            "closed.db",
            "{0}/closed.db cannot be written",
            marks=pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything"),
        ),
    ],
)
def test_a_file_that_cannot_be_a_store(tmp_path: Path, value: str, reason: str) -> None:
    """It is refused before anything starts, with what is in the way."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").touch()
    (tmp_path / "closed.db").touch(mode=0o400)
    expected = "2 sessions.store: must be a file in a folder that can be written: "
    text = f"sessions:\n  store: sqlite://{tmp_path}/{value}\n"
    assert mistakes(tmp_path, text) == [expected + reason.format(tmp_path)]


@pytest.mark.parametrize(
    ("value", "reason"), [(LONG, "File name too long"), ("plain", "{0}/plain is not a folder")]
)
def test_a_folder_that_cannot_be_had(tmp_path: Path, value: str, reason: str) -> None:
    """The same holds for the folder of uploads."""
    (tmp_path / "plain").touch()
    expected = "2 sessions.files: must be a folder that can be written: "
    text = f"sessions:\n  files: {tmp_path}/{value}\n"
    assert mistakes(tmp_path, text) == [expected + reason.format(tmp_path)]


@pytest.mark.parametrize("query", ["db=x", "pasword=s3cret", "socket_timeout=soon", "ssl_cert_reqs=never"])
@pytest.mark.parametrize("key", ["sessions.store", "affinity.directory.redis"])
def test_a_query_that_redis_does_not_know(tmp_path: Path, key: str, query: str) -> None:
    """It is refused without a word of the url, and nobody is connected to."""
    scheme = "rediss" if "ssl" in query else "redis"
    *above, name = key.split(".")
    text = "".join(f"{'  ' * at}{part}:\n" for at, part in enumerate(above))
    text += f'{"  " * len(above)}{name}: "{scheme}://:s3cret@127.0.0.1:1/0?{query}"\n'
    message = "must have only what redis-py knows behind its ?, and a number where one belongs"
    assert mistakes(tmp_path, text) == [f"{len(above) + 1} {key}: {message}"]


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1", "rediss://u:p@127.0.0.1:1/3?ssl_cert_reqs=none", "unix:///no/where"]
)
def test_a_redis_that_is_not_there_is_no_mistake(tmp_path: Path, url: str) -> None:
    """It may come later."""
    assert mistakes(tmp_path, f'sessions:\n  store: "{url}"\n') == []
