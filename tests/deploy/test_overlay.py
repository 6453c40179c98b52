"""The folder that the page on Kubernetes has its reader write, built by kustomize itself."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from proxy.config import loads
from tests.deploy.test_kubernetes import BASE, ENVIRONMENT, FOLDER, PROXY, Objects, charts, keyed
from tests.docs.pages import ROOT, found

NETWORK = "10.244.0.0/16"


@pytest.fixture
def kubectl() -> str:
    """The program that has kustomize in it."""
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("no kubectl on this machine")
    return program


LABELS = {"app.kubernetes.io/instance": "production", "team": "a"}


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


def test_a_selector_takes_every_object(kubectl: str, tmp_path: Path) -> None:
    """All have the labels of the site, the files too: `kubectl apply --selector` leaves none out.

    The pods of a Deployment whose file was left out wait for it.
    """
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    (tmp_path / "kustomization.yaml").write_text(
        "resources: [kubernetes/base]\ncomponents: [kubernetes/monitoring, kubernetes/discovery]\n"
    )
    for objects in (built(kubectl, FOLDER / "base"), built(kubectl, tmp_path)):
        for key, document in objects.items():
            assert document["metadata"]["labels"]["app.kubernetes.io/instance"] == "site", key


@pytest.mark.parametrize("selectors", [False, True])
def test_the_proxies_are_scraped_under_other_labels(kubectl: str, tmp_path: Path, selectors: bool) -> None:
    """An overlay that names the instance anew, or Argo CD as it applies objects, changes the Services.

    Nothing changes what a ServiceMonitor selects them by: it would find none, without a word.
    """
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    overlay = {
        "resources": ["kubernetes/base"],
        "components": ["kubernetes/monitoring"],
        "labels": [{"pairs": LABELS, "includeSelectors": selectors}],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    objects = built(kubectl, tmp_path)
    wanted = objects["ServiceMonitor", "chainlit-proxy"]["spec"]["selector"]["matchLabels"].items()
    found = [
        name
        for (kind, name), document in objects.items()
        if kind == "Service" and wanted <= document["metadata"]["labels"].items()
    ]
    assert found == ["chainlit-proxy-admin"]
    chart = charts()["all"]
    labels = chart["Service", "chainlit-proxy-admin"]["metadata"]["labels"] | LABELS
    assert (
        chart["ServiceMonitor", "chainlit-proxy"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    )
