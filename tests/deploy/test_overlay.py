"""The folder that the page on Kubernetes has its reader write, built by kustomize itself."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from proxy.config import loads
from tests.deploy.test_kubernetes import BASE, ENVIRONMENT, FOLDER, PROXY, Objects, keyed
from tests.docs.pages import ROOT, found

NETWORK = "10.244.0.0/16"


@pytest.fixture
def kubectl() -> str:
    """The program that has kustomize in it."""
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("no kubectl on this machine")
    return program


def built(kubectl: str, folder: Path) -> Objects:
    """What it would apply."""
    done = subprocess.run(
        [kubectl, "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return keyed(list(yaml.safe_load_all(done.stdout)))


def test_the_reader_changes_the_proxys_file(kubectl: str, tmp_path: Path) -> None:
    """Their copy takes the place of the base's and is mounted; the images are theirs."""
    (overlay,) = (
        one.text
        for one in found("yaml")
        if one.page == ROOT / "docs/deployment/kubernetes.md" and "kind: Kustomization" in one.text
    )
    shutil.copytree(FOLDER, tmp_path / "deploy/kubernetes")
    (tmp_path / "kustomization.yaml").write_text(overlay, encoding="utf-8")
    text = (BASE / "proxy.yaml").read_text(encoding="utf-8")
    (tmp_path / "proxy.yaml").write_text(
        text.replace("trusted: []", f"trusted: [{NETWORK}]"), encoding="utf-8"
    )
    objects = built(kubectl, tmp_path)
    pod = objects[PROXY]["spec"]["template"]["spec"]
    mounted = objects["ConfigMap", pod["volumes"][0]["configMap"]["name"]]
    config = loads(mounted["data"]["proxy.yaml"], environ=ENVIRONMENT)
    assert [str(network) for network in config.forwarded.trusted] == [NETWORK]
    assert pod["containers"][0]["image"] == "registry.example.com/chainlit-proxy:0.1.0"
    assert {document["metadata"]["namespace"] for document in objects.values()} == {"chat"}
