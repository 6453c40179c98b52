"""Every YAML block on the pages is a configuration that loads.

A block whose first line is a comment that begins with `part of` is no whole file: it may lack backends.
"""

import re

import pytest

from proxy.config import loads
from tests.docs.pages import Piece, found

BLOCKS = found("yaml")
PART = re.compile(r"# part of ")
SETTING = re.compile(r"[a-z_]+(?:\.[a-z_]+)+: \S+")


def test_there_are_blocks() -> None:
    """The pages show whole files and parts."""
    parts = [bool(PART.match(block.text)) for block in BLOCKS]
    assert any(parts)
    assert not all(parts)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_loads(block: Piece) -> None:
    """It has no mistake; what is not marked as a part can be served as it stands."""
    environ = dict.fromkeys(re.findall(r"\$\{(\w+)", block.text), "some-value")
    loads(block.text, name=str(block), need_backends=not PART.match(block.text), environ=environ)


@pytest.mark.parametrize(
    "setting", [piece for piece in found("span") if SETTING.fullmatch(piece.text)], ids=str
)
def test_a_setting_in_the_text_loads(setting: Piece) -> None:
    """A setting that is told in one line, such as `log.access: false`, is right."""
    path, _, value = setting.text.partition(": ")
    *sections, key = path.split(".")
    opened = "".join(f"{section}: {{" for section in sections)
    loads(f"{opened}{key}: {value}{'}' * len(sections)}", name=str(setting))
