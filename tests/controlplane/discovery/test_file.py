"""The watched list of backends."""

import os
from pathlib import Path

import pytest

from proxy.config import Config, loads
from tests.support.certificates import Authority
from tests.support.finding import WITHIN, Found, entries, follow, replace, url
from tests.support.waiting import eventually


def configured(file: Path) -> Config:
    """A configuration with nothing but the list."""
    return loads(f"discovery: {{file: '{file}'}}\n", need_backends=True)


@pytest.mark.parametrize("whole", [True, False], ids=["renamed", "written in place"])
def test_a_changed_list_is_taken(tmp_path: Path, whole: bool) -> None:
    """Whether it is replaced at once or written over, it is in effect soon, and counted."""
    file = tmp_path / "list.json"
    file.write_text(entries("a", "b"))

    async def scenario(found: Found) -> None:
        assert found.names == ["a", "b"]
        kept = found.backend("b")
        text = entries("b", "c", b=3)
        if whole:
            replace(file, text)
        else:
            file.write_text(text)
        await found.until("b", "c")
        assert found.backend("b") is kept
        assert kept.weight == 3
        assert found.metric("updates_total", "file") == 2
        assert found.metric("backends", "file") == 2
        assert found.metric("current", "file") == 1

    follow(configured(file), scenario)


def test_a_list_that_is_still_written_is_not_read_by_halves(tmp_path: Path) -> None:
    """While it grows between two looks nothing of it is taken; when it rests, all of it."""
    file = tmp_path / "list.yaml"
    file.write_text(entries("a"))
    lines = [f"- {{name: {name}, url: '{url(name)}'}}\n" for name in "bcd"]

    async def scenario(found: Found) -> None:
        with file.open("w") as writing:
            for line in lines:
                writing.write(line)
                writing.flush()
        await found.until("b", "c", "d")
        assert found.metric("updates_total", "file") == 2
        assert found.metric("failures_total", "file") == 0

    follow(configured(file), scenario)


def test_a_link_that_is_turned_is_a_changed_list(tmp_path: Path) -> None:
    """A mounted ConfigMap changes so: the name stays, what it leads to is another file."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "old/list.json").write_text(entries("a"))
    (tmp_path / "new/list.json").write_text(entries("b"))
    (tmp_path / "data").symlink_to("old")
    file = tmp_path / "list.json"
    file.symlink_to("data/list.json")

    async def scenario(found: Found) -> None:
        assert found.names == ["a"]
        (tmp_path / "turned").symlink_to("new")
        (tmp_path / "turned").replace(tmp_path / "data")
        await found.until("b")

    follow(configured(file), scenario)


@pytest.mark.parametrize("bad", ["", "[]", "- url: nowhere", "[{", None])
def test_a_bad_list_changes_nothing(
    tmp_path: Path, bad: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A list that is empty, wrong, cut or gone is logged and counted, and the last good one stays."""
    file = tmp_path / "list.json"
    file.write_text(entries("a", "b"))

    async def scenario(found: Found) -> None:
        if bad is None:
            file.unlink()
        else:
            replace(file, bad)
        await found.until_failed("file")
        assert found.names == ["a", "b"]
        assert not found.told
        assert str(file) in caplog.text
        assert found.metric("failures_total", "file") >= 1
        assert found.metric("current", "file") == 0
        assert found.metric("backends", "file") == 2
        replace(file, entries("c"))
        await found.until("c")
        assert found.metric("current", "file") == 1

    follow(configured(file), scenario)


def test_bad_authorities_in_one_entry_change_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The entry is told at its line, and neither it nor another backend of the list is drained."""
    authority = Authority(tmp_path)
    file, bad = tmp_path / "list.yaml", tmp_path / "bad.pem"
    bad.write_text("no certificate")

    def listed(ca: Path) -> str:
        return f"- {{name: a, url: '{url('a')}'}}\n- name: b\n  url: https://h:1\n  tls: {{ca: '{ca}'}}\n"

    file.write_text(listed(authority.file))

    async def scenario(found: Found) -> None:
        trust = found.answer("b").tls
        found.answer("a")
        replace(file, listed(bad))
        await found.until_failed("file")
        assert found.names == ["a", "b"]
        assert not found.drained("a")
        assert not found.drained("b")
        assert found.backend("b").tls is trust
        assert f"{file}:4: backends[1].tls.ca: must hold certificates in PEM form" in caplog.text
        replace(bad, authority.file.read_text())  # the list itself is as it was
        await eventually(lambda: found.metric("current", "file"), WITHIN, "the list is read again")
        assert found.names == ["a", "b"]

    follow(configured(file), scenario)


def test_the_same_list_again_is_no_update(tmp_path: Path) -> None:
    """A file that is touched, or written anew with the same backends, changes nothing."""
    file = tmp_path / "list.json"
    file.write_text(entries("a"))

    async def scenario(found: Found) -> None:
        replace(file, entries("a") + "\n")
        os.utime(file, (1, 1))
        replace(tmp_path / "list.json", entries("a") + " \n")
        found.answer("a")
        replace(file, "[")  # read after the others
        await found.until_failed("file")
        assert found.metric("updates_total", "file") == 1
        assert not found.drained("a")

    follow(configured(file), scenario)


def test_a_list_that_is_not_there_at_the_start_comes_later(tmp_path: Path) -> None:
    """Nothing waits for it longer than one reading, and it is read when it comes."""
    file = tmp_path / "list.json"

    async def scenario(found: Found) -> None:
        assert found.names == []
        assert found.metric("failures_total", "file") == 1
        file.write_text(entries("a"))
        await found.until("a")

    follow(configured(file), scenario)


def test_what_is_wrong_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is counted each time, and told again only when it is something else."""
    file = tmp_path / "list.json"

    async def scenario(found: Found) -> None:
        await found.until_failed("file")
        assert caplog.text.count("cannot be read") == 1
        file.write_text("[]")
        await eventually(lambda: "at least one backend" in caplog.text, WITHIN, "the next mistake")

    follow(configured(file), scenario)
