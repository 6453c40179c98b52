"""The base for Kubernetes in a cluster whose pods really run: they come and go while people chat in Chromium.

The variable CLUSTER names a kubeconfig; not KUBECONFIG, so that nobody's cluster is taken by mistake. Its
nodes have the images of the page's try-out with kind, `chainlit-proxy:0.1.0` and `chat:1`, and pull Valkey's,
for which the variable VALKEY may name another. All is in a namespace of its own, which is removed at the end.
"""

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser

from tests.browser.tab import Tab
from tests.deploy.people import all_are_remembered, people, session_of
from tests.deploy.test_kubernetes import FOLDER
from tests.support.instances import http_status
from tests.support.processes import free_port
from tests.support.waiting import wait_until

CLUSTER = os.environ.get("CLUSTER")
VALKEY = os.environ.get("VALKEY", "valkey/valkey:8-alpine")
pytestmark = [
    pytest.mark.skipif(CLUSTER is None, reason="no cluster: CLUSTER names a kubeconfig"),
    pytest.mark.system,
    pytest.mark.alone,
    pytest.mark.timeout(1200),
]
CHAT, PROXY = "statefulset/chat", "deployment/chainlit-proxy"
PODS = ["chat-0", "chat-1", "chat-2"]
TOKENS = ("admin-token", "hook-token", "affinity-secret", "auth-secret")
STORE = f"""
apiVersion: v1
kind: Service
metadata: {{name: valkey}}
spec: {{clusterIP: None, selector: {{app: valkey}}, ports: [{{port: 6379}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: valkey}}
spec:
  selector: {{matchLabels: {{app: valkey}}}}
  template:
    metadata: {{labels: {{app: valkey}}}}
    spec:
      containers: [{{name: valkey, image: "{VALKEY}", imagePullPolicy: IfNotPresent, args: [valkey-server]}}]
"""
# A machine for trying has little to give.
LITTLE = json.dumps([{"op": "remove", "path": "/spec/template/spec/containers/0/resources/requests"}])
LITTLE_FOR = [{"kind": "Deployment", "name": "chainlit-proxy"}, {"kind": "StatefulSet", "name": "chat"}]


class Cluster:
    """The site in a namespace of a cluster; owned by the fixture."""

    def __init__(self, folder: Path) -> None:
        self.namespace = f"chainlit-proxy-test-{secrets.token_hex(4)}"
        shutil.copytree(FOLDER, folder / "deploy/kubernetes")
        (folder / "store.yaml").write_text(STORE)
        site = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": self.namespace,
            "resources": ["deploy/kubernetes/base", "store.yaml"],
            "patches": [{"target": target, "patch": LITTLE} for target in LITTLE_FOR],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(site))
        self._folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._way: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """As the page says, with a store in the same namespace, until all pods are ready."""
        self.kubectl("create", "namespace", self.namespace)
        values = {name: secrets.token_hex(32) for name in TOKENS} | {"sessions-url": "redis://valkey:6379/0"}
        literals = [f"--from-literal={name}={value}" for name, value in values.items()]
        self.kubectl("create", "secret", "generic", "chainlit", *literals)
        self.kubectl("apply", "-k", str(self._folder))
        self.rolled("deployment/valkey", PROXY, CHAT)

    def _command(self, *words: str) -> list[str]:
        return ["kubectl", "--kubeconfig", str(CLUSTER), "--namespace", self.namespace, *words]

    def kubectl(self, *words: str, within: float = 600.0) -> str:
        """What a command prints; it has to succeed."""
        done = subprocess.run(
            self._command(*words), capture_output=True, text=True, timeout=within, check=False
        )
        assert done.returncode == 0, f"{words[:3]}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
        return done.stdout

    def rolled(self, *workloads: str) -> None:
        """Wait until all pods of each are new, ready, and have been so for a while."""
        for workload in workloads:
            self.kubectl("rollout", "status", workload, "--timeout=580s")

    def open(self) -> None:
        """Lead a port of this machine to a proxy, for as long as that lives."""
        self._way = subprocess.Popen(
            self._command("port-forward", PROXY, f"{self.port}:8000"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: http_status(f"{self.url}/.chainlit-proxy/healthz") == 200, 60, "the way in")

    def asked(self, command: str) -> Any:
        """What a command of the proxy's prints as JSON, run in a pod of it as the page says."""
        return json.loads(self.kubectl("exec", PROXY, "--", "chainlit-proxy", *command.split(), "--json"))

    def home(self, tab: Tab) -> str:
        """The pod that holds a chat."""
        return str(self.asked(f"where {session_of(tab)}")["backend"])

    def healthy(self) -> list[str]:
        """The pods that take sessions."""
        told = self.asked("status")
        return sorted(
            one["name"] for one in told if (one["health"], one["admin_state"]) == ("healthy", "ready")
        )

    def end(self) -> None:
        """Remove the namespace with all that is in it."""
        if self._way is not None:
            self._way.terminate()
            self._way.wait()
        print(self.kubectl("get", "pods,events"))
        self.kubectl("delete", "namespace", self.namespace, "--wait=false")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The site, with all of its pods ready."""
    cluster = Cluster(tmp_path_factory.mktemp("site"))
    try:
        cluster.start()
        cluster.open()
        yield cluster
    finally:
        cluster.end()


@pytest.fixture
def tabs(cluster: Cluster, chromium: Browser) -> Iterator[list[Tab]]:
    """Three people who have said who they are, on a site whose pods all take sessions."""
    wait_until(lambda: cluster.healthy() == PODS, 120, lambda: str(cluster.healthy()))
    with people(chromium, cluster.url) as tabs:
        yield tabs


def test_a_rollout_is_not_noticed(cluster: Cluster, tabs: list[Tab]) -> None:
    """Every pod is replaced, one after the other, each when the proxies take the one before."""
    began = time.time()
    before = cluster.kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.uid}")
    cluster.kubectl("rollout", "restart", CHAT)
    cluster.rolled(CHAT)
    after = cluster.kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.uid}")
    assert len(set(before.split()) - set(after.split())) == len(PODS)
    all_are_remembered(tabs)
    assert [tab.was_closed(began) for tab in tabs] == [False] * len(tabs)


def test_a_pod_that_is_deleted_ends_what_it_says(cluster: Cluster, tabs: list[Tab]) -> None:
    """In the middle of an answer: it is said to its end, and the chat is at another pod."""
    tab, began = tabs[0], time.time()
    victim = cluster.home(tab)
    before, answers = tab.messages.count(), tab.answers.count()
    tab.send("tell me more")
    tab.begun(before)
    cluster.kubectl("delete", "pod", victim)
    tab.answer(answers)
    assert cluster.home(tab) != victim
    all_are_remembered(tabs)
    assert [tab.was_closed(began) for tab in tabs] == [False] * len(tabs)
    cluster.rolled(CHAT)


def test_a_pod_that_is_gone_is_survived(cluster: Cluster, tabs: list[Tab]) -> None:
    """Deleted by force, as when its node is lost: what was said before is known at another pod."""
    tab = tabs[1]
    victim = cluster.home(tab)
    cluster.kubectl("delete", "pod", victim, "--force", "--grace-period=0")
    all_are_remembered(tabs)
    cluster.rolled(CHAT)


def test_the_account_of_the_proxies_has_no_token(cluster: Cluster) -> None:
    """Without discovery nothing in their pods can speak to the API server."""
    look = partial(cluster.kubectl, "exec", PROXY, "--", "sh", "-c")
    assert look("ls /var/run/secrets/kubernetes.io 2>&1 || true").endswith("No such file or directory\n")
