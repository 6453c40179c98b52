"""The endpoints of a Service, from a stand-in of the API server that does what a real one does."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.config import Config, ConfigError, loads
from proxy.config.sections import KubernetesSettings
from proxy.controlplane.discovery.kubernetes import KubernetesSource
from proxy.controlplane.discovery.source import Backends
from tests.support.certificates import Authority
from tests.support.finding import WITHIN, Found, follow
from tests.support.kubernetes_server import ApiServer, endpoint, of_service
from tests.support.waiting import eventually


def configured(server: ApiServer, folder: Path, more: str = "") -> Config:
    """A configuration that finds the service `chainlit` there."""
    asked = f"{{service: chainlit, namespace: chat, kubeconfig: '{server.kubeconfig(folder)}'{more}}}"
    return loads(f"discovery: {{kubernetes: {asked}}}\n", need_backends=True)


A = endpoint("chat-0", "10.0.0.1")
B = endpoint("chat-1", "10.0.0.2")


async def watched(server: ApiServer) -> None:
    """Wait until the proxy watches."""
    await eventually(lambda: server.watches == 1, WITHIN, "a watch")


def test_pods_come_and_go(tmp_path: Path) -> None:
    """Each ready pod is a backend, called by its name; at another address it is the same one."""
    server = ApiServer()

    async def scenario(found: Found) -> None:
        await server.put(of_service("s-1", A, B))
        await found.until("chat-0", "chat-1")
        a = found.answer("chat-0")
        assert a.url == "http://10.0.0.1:8000"
        await server.put(of_service("s-1", endpoint("chat-0", "10.0.0.9"), B), of_service("s-2"))
        await eventually(lambda: a.host == "10.0.0.9", WITHIN, lambda: repr(a))
        assert found.backend("chat-0") is a
        assert not found.drained("chat-0")
        await server.delete("s-1")
        await found.until()
        assert found.metric("failures_total", "kubernetes") == 0
        assert found.metric("current", "kubernetes") == 1

    follow(configured(server, tmp_path), scenario, beside=server)


@pytest.mark.parametrize(
    "conditions",
    [
        {"ready": False, "serving": True, "terminating": True},
        {"ready": True, "serving": True, "terminating": True},
        {"ready": False, "serving": False, "terminating": False},
    ],
    ids=["terminating", "terminating, published all the same", "not ready"],
)
def test_who_is_not_ready_drains(tmp_path: Path, conditions: dict[str, bool]) -> None:
    """It takes no sessions and keeps those it has; ready again, it is the same backend and takes them."""
    server = ApiServer()

    async def scenario(found: Found) -> None:
        await server.put(of_service("s-1", A, B))
        await found.until("chat-0", "chat-1")
        a = found.answer("chat-0")
        await server.put(of_service("s-1", A | {"conditions": conditions}, B))
        await found.until("chat-1")
        assert found.drained("chat-0")
        assert not a.takes_sessions
        assert a.holds_pins
        await server.put(of_service("s-1", A, B))
        await found.until("chat-0", "chat-1")
        assert found.backend("chat-0") is a
        assert a.takes_sessions

    follow(configured(server, tmp_path), scenario, drains=False, beside=server)


def test_a_cut_stream_is_taken_up_where_it_ended(tmp_path: Path) -> None:
    """What happened meanwhile is heard, nothing is listed anew, and nobody is drained."""
    server = ApiServer()

    async def scenario(found: Found) -> None:
        await server.put(of_service("s-1", A))
        await found.until("chat-0")
        found.answer("chat-0")
        for number in range(2):
            await watched(server)
            server.cut()
            await server.put(of_service("s-1", A, endpoint(f"new-{number}", f"10.1.0.{number}")))
            await found.until("chat-0", f"new-{number}")
        assert server.lists == 1
        assert not found.drained("chat-0")
        assert found.metric("failures_total", "kubernetes") == 0

    follow(configured(server, tmp_path), scenario, beside=server)


@pytest.mark.parametrize("as_status", [False, True], ids=["as an event", "as a status"])
def test_a_version_that_is_gone_is_listed_anew(tmp_path: Path, as_status: bool) -> None:
    """410 Gone: what is there now is read as a whole, and what did not change is not touched."""
    server = ApiServer()

    async def scenario(found: Found) -> None:
        await server.put(of_service("s-1", A), of_service("s-2", B))
        await found.until("chat-0", "chat-1")
        found.answer("chat-0")
        await watched(server)
        if as_status:
            server.refusal = 410, "too old resource version"
        server.cut()
        await server.delete("s-2")
        server.compact()
        if as_status:
            asked = len(server.asked)
            await eventually(lambda: len(server.asked) > asked, WITHIN, "the next request")
            server.refusal = None
        await found.until("chat-0")
        assert server.lists == 2
        assert not found.drained("chat-0")
        assert found.metric("failures_total", "kubernetes") == 0

    follow(configured(server, tmp_path), scenario, beside=server)


def test_a_bookmark_moves_the_place(tmp_path: Path) -> None:
    """After a quiet time a stream that is cut goes on from the bookmark, which the server still knows."""
    server = ApiServer()

    async def scenario(found: Found) -> None:
        await server.put(of_service("s-1", A))
        await found.until("chat-0")
        await watched(server)
        server.compact()
        await server.bookmark()
        await server.put(of_service("s-1", A, B))
        await found.until("chat-0", "chat-1")
        await watched(server)
        server.cut()
        await server.put(of_service("s-1", B))
        await found.until("chat-1")
        assert server.lists == 1

    follow(configured(server, tmp_path), scenario, beside=server)


def test_a_server_that_refuses_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its words are told, it is counted, the last good fleet stays, and it is asked again."""
    server = ApiServer()
    words = 'endpointslices.discovery.k8s.io is forbidden: User "proxy" cannot watch resource'

    async def scenario(found: Found) -> None:
        await server.put(of_service("s-1", A))
        await found.until("chat-0")
        found.answer("chat-0")
        await watched(server)
        server.refusal = 403, words
        server.cut()
        await found.until_failed("kubernetes")
        assert f"service chainlit: 403 {words}" in caplog.text
        assert found.names == ["chat-0"]
        assert not found.drained("chat-0")
        assert found.metric("current", "kubernetes") == 0
        server.refusal = None
        await server.put(of_service("s-1", A, B))
        await found.until("chat-0", "chat-1")
        assert found.metric("current", "kubernetes") == 1

    follow(configured(server, tmp_path), scenario, beside=server)


def test_a_server_that_is_away_is_waited_for(tmp_path: Path) -> None:
    """Nobody listens at the start: that is counted, and the service is found when it is back."""
    server = ApiServer()

    async def scenario(found: Found) -> None:
        assert found.names == []
        assert found.metric("failures_total", "kubernetes") >= 1
        async with server:
            await server.put(of_service("s-1", A))
            await found.until("chat-0")

    follow(configured(server, tmp_path), scenario)


def test_two_families_and_two_slices_are_one_backend(tmp_path: Path) -> None:
    """A pod is one Chainlit, whatever addresses and slices it has; IPv4 is taken where there is both."""
    server = ApiServer()

    async def scenario(found: Found) -> None:
        await server.put(
            of_service("s-6", endpoint("chat-0", "fd00::1"), endpoint("only", "fd00::2"), family="IPv6"),
            of_service("s-1", A),
            of_service("s-2", A | {"conditions": {"ready": False}}),
            of_service("s-n", endpoint("named", "elsewhere.example"), family="FQDN"),
        )
        await found.until("chat-0", "only")
        assert found.backend("chat-0").url == "http://10.0.0.1:8000"
        assert found.backend("only").url == "http://[fd00::2]:8000"

    follow(configured(server, tmp_path), scenario, beside=server)


@pytest.mark.parametrize(
    "conditions", [{}, None, {"ready": None}], ids=["no condition", "null", "ready is null"]
)
def test_what_is_not_told_means_ready(tmp_path: Path, conditions: dict[str, Any] | None) -> None:
    """As the API has it; and an endpoint that is no pod is called by its address."""
    server = ApiServer()
    bare = {"addresses": ["10.0.0.1"], "conditions": conditions}

    async def scenario(found: Found) -> None:
        await server.put(of_service("s-1", bare))
        await found.until("10.0.0.1:8000")

    follow(configured(server, tmp_path), scenario, beside=server)


def test_one_of_several_ports_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without its name the list is not usable, and the ports that there are are told."""
    server = ApiServer()
    ports = {"http": 8000, "metrics": 9000}

    async def scenario(found: Found) -> None:
        await server.put(of_service("s-1", A, ports=ports))
        await found.until_failed("kubernetes")
        assert "discovery.kubernetes.port must name one of its ports: http, metrics" in caplog.text
        assert found.names == []
        assert (await found.reload(configured(server, tmp_path, ", port: metrics"))).applied
        await found.until("chat-0")
        assert found.backend("chat-0").port == 9000

    config = configured(server, tmp_path)
    follow(config.model_copy(update={"listen": ()}), scenario, beside=server)


def test_a_pod_asks_with_its_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over TLS with the cluster's authority, its own token, in its own namespace, and for nothing else."""
    authority = Authority(tmp_path)
    server = ApiServer(authority.issue("127.0.0.1"))
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("first-token")
    (account / "namespace").write_text("chat\n")
    (account / "ca.crt").write_text(authority.file.read_text())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    told: list[Backends] = []

    async def scenario() -> None:
        async with server:
            source = KubernetesSource(KubernetesSettings(service="chainlit"), told.append, account)
            task = asyncio.create_task(source.run())
            await server.put(of_service("s-1", A))
            await eventually(lambda: told and told[-1], WITHIN, lambda: repr(source))
            (account / "token").write_text("second-token")
            await watched(server)
            server.cut()
            await eventually(
                lambda: server.asked[-1]["authorization"] == "Bearer second-token", WITHIN, "the new token"
            )
            task.cancel()
            await asyncio.wait([task])

    asyncio.run(scenario())
    assert [backend.name for backend in told[-1]] == ["chat-0"]
    assert server.asked[0]["authorization"] == "Bearer first-token"
    assert {query["path"] for query in server.asked} == {
        "/apis/discovery.k8s.io/v1/namespaces/chat/endpointslices"
    }
    assert {query["labelSelector"] for query in server.asked} == {"kubernetes.io/service-name=chainlit"}


def test_outside_of_a_cluster_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a kubeconfig and a service account nothing can be asked; the proxy serves all the same."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    async def scenario() -> None:
        source = KubernetesSource(KubernetesSettings(service="chainlit"), lambda _: None, tmp_path)
        task = asyncio.create_task(source.run())
        await source.asked.wait()
        assert source.failures == 1
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(scenario())


def test_a_bad_name_is_told() -> None:
    """At its key, with what is allowed."""
    with pytest.raises(ConfigError, match=r"discovery.kubernetes.service: must be 1 to 63 small letters"):
        loads("discovery: {kubernetes: {service: Chainlit_1}}\n")


def test_the_role_on_the_page_is_the_least() -> None:
    """In one namespace, for endpointslices, what the stand-in is asked for: list and watch."""
    page = (Path(__file__).parents[3] / "docs/discovery.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(apiVersion.*?)```", page, re.DOTALL)
    role, binding = yaml.safe_load_all(text)
    assert role["kind"] == "Role"
    assert role["rules"] == [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
    ]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
