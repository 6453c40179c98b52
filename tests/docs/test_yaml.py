"""Every YAML block on the pages is right for what it is.

A proxy's configuration passes `chainlit-proxy check`; one whose first line is a comment that begins with
`part of` is no whole file, and may lack backends. A block with `apiVersion` is for Kubernetes.
"""

import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from proxy.cli import main
from proxy.config import loads
from proxy.config.found import found_backends
from tests.deploy.crds import NOT_TO_BE_HAD, refusal
from tests.deploy.schemas import mistakes
from tests.docs.pages import ROOT, Piece, found
from tests.support.certificates import Authority

BLOCKS = found("yaml")
PART = re.compile(r"# part of ")
SETTING = re.compile(r"[a-z_]+(?:\.[a-z_]+)+: \S+")
KUBERNETES = [block for block in BLOCKS if "apiVersion:" in block.text]
# Tried by tests/system/test_fronts.py and tests/deploy/test_chart.py.
OTHERS = [block for block in BLOCKS if re.match(r"# (traefik\.yaml|routes\.yaml|values for)", block.text)]
CONFIGURATIONS = [block for block in BLOCKS if block not in KUBERNETES and block not in OTHERS]
LISTS = [block for block in found("json") if block.text.lstrip().startswith("[")]
BACKENDS = "\nbackends:\n  - url: http://127.0.0.1:8001\n"
CERTIFICATES = "/etc/chat/"  # where the pages have them


def test_there_are_blocks() -> None:
    """The pages show whole files and parts."""
    parts = [bool(PART.match(block.text)) for block in CONFIGURATIONS]
    assert any(parts)
    assert not all(parts)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the certificates that the pages name."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder, "internal-ca")
    pair = authority.issue("chat.example.com")
    Path(pair["cert"]).rename(folder / "fullchain.pem")
    Path(pair["key"]).rename(folder / "privkey.pem")
    for name in ("example.com", "example.org"):
        Path(authority.issue(name)["cert"]).rename(folder / f"{name}.pem")
    return folder


@pytest.mark.parametrize("block", CONFIGURATIONS, ids=str)
def test_a_configuration_passes_check(block: Piece, certificates: Path, tmp_path: Path) -> None:
    """It has no mistake; what is not marked as a part can be served as it stands."""
    text = block.text.replace(CERTIFICATES, f"{certificates}/")
    if PART.match(text) and not {"backends", "discovery"} & yaml.safe_load(text).keys():
        text += BACKENDS
    file = tmp_path / "proxy.yaml"
    file.write_text(text, encoding="utf-8")
    environ = dict.fromkeys(re.findall(r"\$\{(\w+)", text), "some-value")
    done = CliRunner().invoke(main, ["check", "-c", str(file)], env=environ)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("block", KUBERNETES, ids=str)
def test_an_object_for_kubernetes_is_valid(block: Piece) -> None:
    """Each document keeps to the schema of its kind, and has no field that the schema has not."""
    for document in yaml.safe_load_all(block.text):
        if document["kind"] in NOT_TO_BE_HAD:
            continue
        if document["apiVersion"].startswith("gateway."):
            assert refusal(document) == ""
            assert refusal(document | {"spec": {"parentRefs": "chat", "listeners": "all"}})
            continue
        if document["kind"] == "Kustomization":
            folders = [*document["resources"], *document["components"]]
            assert [folder for folder in folders if not (ROOT / folder / "kustomization.yaml").exists()] == []
            continue
        assert mistakes(document) == []


@pytest.mark.parametrize(
    "setting", [piece for piece in found("span") if SETTING.fullmatch(piece.text)], ids=str
)
def test_a_setting_in_the_text_loads(setting: Piece) -> None:
    """A setting that is told in one line, such as `log.access: false`, is right."""
    path, _, value = setting.text.partition(": ")
    *sections, key = path.split(".")
    opened = "".join(f"{section}: {{" for section in sections)
    loads(f"{opened}{key}: {value}{'}' * len(sections)}", name=str(setting))


@pytest.mark.parametrize("block", LISTS, ids=str)
def test_a_list_of_backends_is_read(block: Piece) -> None:
    """What the page shows of a file with backends can be found in one."""
    assert len(found_backends(block.text.encode(), str(block))) > 1


@pytest.mark.parametrize("block", found("text"), ids=str)
def test_what_is_called_text_is_no_yaml(block: Piece) -> None:
    """A block that YAML or JSON would read as more than words is marked as such, and so tested above.

    Only one line may look like it: a header field does.
    """
    if len(block.text.splitlines()) == 1:
        return
    try:
        documents = list(yaml.safe_load_all(block.text))
    except yaml.YAMLError:
        return
    assert {type(document) for document in documents} <= {str}, "mark it as yaml or json"


@pytest.mark.parametrize("block", found("python"), ids=str)
def test_a_block_of_python_can_be_read(block: Piece) -> None:
    """It is Python."""
    compile(block.text, str(block), "exec", flags=0, dont_inherit=True)
