"""The image and the unit have the proxy's memory come in huge pages."""

import re
from pathlib import Path

import pytest

from benchmarks.huge_pages import environment
from tests.docs.pages import ROOT
from tests.support.instances import http_status
from tests.support.proxy_process import ProxyProcess, config_for
from tests.support.waiting import wait_until

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def test_the_image_sets_what_the_unit_sets() -> None:
    """Both have the same two variables, and the page names them."""
    stage = (ROOT / "Dockerfile").read_text().partition("FROM base AS proxy")[2]
    assert environment().keys() == {"PYTHONMALLOC", "GLIBC_TUNABLES"}
    for name, value in environment().items():
        assert f"{name}={value}" in stage
        assert f"{name}={value}" in (ROOT / "docs/benchmarks/cpu.md").read_text()


@pytest.mark.system
def test_a_proxy_with_them_has_huge_pages(tmp_path: Path) -> None:
    """Of those that the kernel gives on demand."""
    if not ENABLED.exists() or "[never]" in ENABLED.read_text():
        pytest.skip("this kernel gives nobody huge pages")
    config = config_for([], backends=[{"url": "http://127.0.0.1:9"}])
    proxy = ProxyProcess(config, tmp_path)
    proxy.env = environment()
    proxy.launch()
    try:
        wait_until(lambda: http_status(f"{proxy.admin}/healthz") == 200, 20, proxy.tail)
        rollup = Path(f"/proc/{proxy.pid}/smaps_rollup").read_text()
    finally:
        proxy.stop()
    assert int(re.findall(r"(?m)^AnonHugePages: +(\d+) kB$", rollup)[0]) >= 2048, rollup
