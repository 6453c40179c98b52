"""A real API server of Kubernetes, with its etcd, on loopback; no node is behind it, so no pod ever runs.

The variable KUBEBUILDER_ASSETS names the folder of `etcd`, `kube-apiserver` and `kubectl`, as setup-envtest
fills it (https://book.kubebuilder.io/reference/envtest). No package of Debian, PyPI or npm has an API server.
The variable CRDS names a folder of CustomResourceDefinitions, whose kinds it then knows too: the files
of the projects themselves, or what `kubectl get crd -o yaml` prints of a cluster.
"""

import json
import os
import secrets
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.support.certificates import Authority
from tests.support.processes import free_port
from tests.support.waiting import wait_until

PROGRAMS = ("etcd", "kube-apiserver", "kubectl")
MISSING = f"no API server: KUBEBUILDER_ASSETS names a folder with {', '.join(PROGRAMS)}"
START = 60.0  # seconds until it answers
ADMIN = "system:masters"
DEFINED = 30.0  # seconds until it serves a kind that was defined


class RefusedError(AssertionError):
    """The API server refuses something; its words."""


def assets() -> Path | None:
    """The folder of the programs, if it was named and has them all."""
    folder = Path(os.environ.get("KUBEBUILDER_ASSETS", "/nonexistent"))
    return folder if all((folder / name).exists() for name in PROGRAMS) else None


def definitions() -> Path | None:
    """The folder of the definitions of others' kinds, if one was named."""
    return Path(os.environ["CRDS"]) if "CRDS" in os.environ else None


class ApiServer:
    """The release that was named. It may be stopped and started again, its store is there all the time."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._folder = programs, folder
        self._etcd, self.port = free_port(), free_port()
        self._token = secrets.token_hex()
        self._authority = Authority(folder)
        self._pair = self._authority.issue("127.0.0.1")
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "tokens.csv").write_text(f'{self._token},admin,admin,"{ADMIN}"\n')
        self.admin = self.kubeconfig("admin", self._token)
        self.defined: frozenset[str] = frozenset()  # kinds that are not Kubernetes' own

    def kubeconfig(self, name: str, token: str) -> Path:
        """A file that leads here, for somebody who has a token."""
        cluster = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority": str(self._authority.file),
        }
        told = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
        }
        file = self._folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(told))
        return file

    def _spawn(self, name: str, **options: object) -> None:
        words = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
        with self._log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                [self._programs / name, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def told(self) -> str:
        """The ends of both logs."""
        return "\n".join(
            self._log(name).read_text(errors="replace")[-2000:]
            for name in PROGRAMS
            if self._log(name).exists()
        )

    def start_store(self) -> None:
        """Start etcd."""
        url = f"http://127.0.0.1:{self._etcd}"
        peers = f"http://127.0.0.1:{free_port()}"
        self._spawn(
            "etcd",
            data_dir=self._folder / "etcd",
            listen_client_urls=url,
            advertise_client_urls=url,
            listen_peer_urls=peers,
            initial_advertise_peer_urls=peers,
            initial_cluster=f"default={peers}",
            unsafe_no_fsync=True,
        )

    def start(self) -> None:
        """Start the API server, and wait until it is ready."""
        self._spawn(
            "kube-apiserver",
            etcd_servers=f"http://127.0.0.1:{self._etcd}",
            bind_address="127.0.0.1",
            secure_port=self.port,
            advertise_address="192.0.2.1",  # which may not be loopback; nobody is told it
            endpoint_reconciler_type="none",
            tls_cert_file=self._pair["cert"],
            tls_private_key_file=self._pair["key"],
            service_account_issuer="https://kubernetes.default.svc",
            service_account_key_file=self._pair["cert"],
            service_account_signing_key_file=self._pair["key"],
            service_cluster_ip_range="198.18.0.0/16",
            token_auth_file=self._folder / "tokens.csv",
            authorization_mode="RBAC",
            disable_admission_plugins="ServiceAccount",  # accounts are made by a controller
        )
        wait_until(self._is_ready, START, self.told)

    def _is_ready(self) -> bool:
        assert all(process.poll() is None for process in self._running.values()), self.told()
        return self.call("get", "--raw", "/readyz").returncode == 0

    def define(self, folder: Path) -> None:
        """Know more kinds: those of a folder of definitions."""
        self.kubectl("apply", "--server-side", "-f", str(folder))
        self.kubectl("wait", "--for=condition=Established", f"--timeout={DEFINED:.0f}s", "crd", "--all")
        told = json.loads(self.kubectl("get", "crd", "-o", "json"))["items"]
        self.defined = frozenset(one["spec"]["names"]["kind"] for one in told)

    def stop(self, name: str = "kube-apiserver") -> None:
        """End one of the two."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def end(self) -> None:
        """End both."""
        for name in list(self._running):
            self.stop(name)

    def compact(self) -> None:
        """Forget all changes until now, as etcd does every five minutes."""
        here = self._store("range", {"key": "AA=="})["header"]["revision"]
        self._store("compaction", {"revision": here})

    def _store(self, command: str, asked: dict[str, str]) -> Any:
        url = f"http://127.0.0.1:{self._etcd}/v3/kv/{command}"
        with urllib.request.urlopen(url, json.dumps(asked).encode(), timeout=20) as response:
            return json.loads(response.read())

    def call(
        self, *words: str, given: str | None = None, kubeconfig: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command of kubectl, however it ends; by an administrator unless another file is named."""
        return subprocess.run(
            [self._programs / "kubectl", "--kubeconfig", kubeconfig or self.admin, *words],
            env={"PATH": os.environ["PATH"], "HOME": str(self._folder)},
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def kubectl(self, *words: str, given: str | None = None, kubeconfig: Path | None = None) -> str:
        """What it prints; RefusedError unless it succeeds."""
        done = self.call(*words, given=given, kubeconfig=kubeconfig)
        if done.returncode:
            raise RefusedError(done.stderr)
        return done.stdout

    def apply(
        self, documents: list[dict[str, Any]], namespace: str, manager: str = "kubectl"
    ) -> dict[str, str]:
        """Apply objects as the server sees them, no field unknown or told twice; their versions by name.

        It has nothing to warn of. Objects that name no namespace are for the one that is named here.
        """
        placed = [{**one, "metadata": {"namespace": namespace, **one["metadata"]}} for one in documents]
        words = ("apply", "--server-side", "--field-manager", manager, "--validate=strict")
        return self.versions(*words, "--warnings-as-errors", "-f", "-", given=yaml.safe_dump_all(placed))

    def versions(self, *words: str, given: str | None = None) -> dict[str, str]:
        """The objects that a command of kubectl is about, by name, each with its version after it."""
        told = json.loads(self.kubectl(*words, "-o", "json", given=given))
        items = told.get("items") or [told]
        return {
            f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
            for item in items
        }


@contextmanager
def running(programs: Path, folder: Path) -> Iterator[ApiServer]:
    """One that is ready; nothing of it runs afterwards."""
    server = ApiServer(programs, folder)
    try:
        server.start_store()
        server.start()
        if folder_of_kinds := definitions():
            server.define(folder_of_kinds)
        yield server
    finally:
        server.end()
