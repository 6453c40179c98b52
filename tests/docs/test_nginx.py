"""The blocks for nginx are read by nginx, where this machine has one."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import Piece, found
from tests.support.certificates import Authority
from tests.support.front_programs import program


@pytest.mark.parametrize("block", found("nginx"), ids=str)
def test_nginx_accepts_it(block: Piece, tmp_path: Path) -> None:
    """It stands in `http`, or in a `server` there if it is a place, and has no mistake."""
    nginx = program("nginx")
    text = block.text
    if text.startswith("location"):
        text = f"server {{ listen 127.0.0.1:8080; {text} }}"
    pair = Authority(tmp_path).issue("chat.example.com")
    text = re.sub(r"(ssl_certificate) +[^;]+;", rf"\1 {pair['cert']};", text)
    text = re.sub(r"(ssl_certificate_key) +[^;]+;", rf"\1 {pair['key']};", text)
    paths = "".join(
        f"{name}_temp_path {tmp_path};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = tmp_path / "nginx.conf"
    file.write_text(
        f"pid {tmp_path}/pid; events {{}} http {{ access_log off; {paths} {text} }}", encoding="utf-8"
    )
    done = subprocess.run(
        [nginx, "-t", "-q", "-e", str(tmp_path / "errors"), "-c", str(file)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
