"""`compose.yaml` and what it mounts: right by the specification of Compose, and each part fits the others."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from click.testing import CliRunner
from compose_spec import PyCompose

from proxy.cli import main
from proxy.config import load
from tests.deploy.prometheus import MISSING, find
from tests.deploy.test_files import DASHBOARD
from tests.docs.pages import ROOT, found
from tests.docs.test_commands import parse
from tests.docs.test_dockerfile import STEPS, command

FILE = ROOT / "compose.yaml"
SITE: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = SITE["services"]
CHATS = [name for name in SERVICES if name.startswith("chat-")]
CONFIG = ROOT / "deploy/compose/proxy.yaml"
ENVIRONMENT = {"ADMIN_TOKEN": "some-token", "HEALTH_SECRET": "some-secret"}


def compose(site: dict[str, Any]) -> PyCompose:
    """Read by a parser of the specification, with every reference followed; ValueError."""
    parsed = PyCompose.from_json(json.dumps(site))
    parsed.validate()
    return parsed


def test_compose_accepts_it() -> None:
    """Every key is one of the specification, with a value that it allows; networks and volumes are there."""
    assert set(compose(SITE).service_names()) == set(SERVICES)


@pytest.mark.parametrize("damage", [{"prots": ["1:1"]}, {"networks": ["nowhere"]}, {"ports": ["x:y"]}])
def test_compose_would_refuse_a_mistake(damage: dict[str, Any]) -> None:
    """The parser knows a wrong key, a network that is nowhere, and a port that is none."""
    site = {**SITE, "services": {**SERVICES, "proxy": {**SERVICES["proxy"], **damage}}}
    with pytest.raises(ValueError, match=r"."):
        compose(site)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_do_little(name: str) -> None:
    """No service writes outside its volumes and /tmp, keeps a capability, or can get one."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_exists(name: str) -> None:
    """What is not there would be an empty folder; a file bound by itself would stay as it was."""
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        assert (ROOT / source).is_dir() if source.startswith(".") else source in SITE["volumes"], source


def test_the_proxy_finds_its_file() -> None:
    """Its folder is mounted where the image looks for it."""
    (volume,) = SERVICES["proxy"]["volumes"]
    source, target, _ = volume.split(":")
    assert ROOT / source == CONFIG.parent
    (words,) = [command(rest) for word, rest in STEPS if word == "CMD" and "serve" in rest]
    assert f"{target}/{CONFIG.name}" in words


def test_what_is_built_is_a_stage() -> None:
    """The Dockerfile has each target."""
    stages = {rest.split(" AS ")[1] for word, rest in STEPS if word == "FROM"}
    assert {service["build"]["target"] for service in SERVICES.values() if "build" in service} <= stages


def test_an_image_is_built_once() -> None:
    """Services are built at once, and two that give one name to what they build are in each other's way."""
    built = [service["image"] for service in SERVICES.values() if "build" in service]
    assert len(built) == len(set(built))
    for service in SERVICES.values():
        assert service["image"] not in built or "build" in service or service["pull_policy"] == "never"


@pytest.mark.parametrize("name", CHATS)
def test_uploads_do_not_take_the_machine(name: str) -> None:
    """They are in a place of a size, which the memory of the container is above."""
    (place,) = SERVICES[name]["tmpfs"]
    options = dict(option.split("=") for option in place.partition(":")[2].split(","))
    assert options.keys() == {"mode", "size"}  # Podman knows no others
    size = options["size"].rstrip("g")
    assert int(size) < int(SERVICES[name]["mem_limit"].rstrip("g"))


def test_commands_in_the_container_have_the_token() -> None:
    """`chainlit-proxy status` needs no `--token`, which everybody on the machine could read."""
    environment = SERVICES["proxy"]["environment"]
    assert environment["CHAINLIT_PROXY_TOKEN"] == environment["ADMIN_TOKEN"]


@pytest.mark.parametrize("there", [None, "CHAINLIT_AUTH_SECRET=mine\nADMIN_TOKEN=older\n"])
def test_the_first_steps_may_be_taken_twice(there: str | None, tmp_path: Path) -> None:
    """Only the owner reads the secrets, and a second time changes none: that would restart the proxy."""
    page = ROOT / "docs/deployment/compose.md"
    (text,) = (one.text for one in found("sh") if one.page == page and "openssl" in one.text)
    steps = "\n".join(line for line in text.splitlines() if not line.startswith("docker"))
    file = tmp_path / ".env"
    if there is not None:
        file.write_text(there)
    written = []
    for _ in range(2):
        subprocess.run(["sh", "-e", "-c", steps], cwd=tmp_path, timeout=60, check=True)
        written.append(file.read_text())
    assert written[0] == written[1]
    names = [line.partition("=")[0] for line in written[0].splitlines()]
    assert set(names) == ENVIRONMENT.keys() | ({"CHAINLIT_AUTH_SECRET"} if there else set())
    assert len(names) == len(set(names))
    assert written[0].startswith(there or "ADMIN_TOKEN=")
    assert there or file.stat().st_mode & 0o777 == 0o600


def test_the_configuration_of_the_proxy_passes_check() -> None:
    """With the token and the secret that compose asks for, and without either it does not."""
    for lack in (None, *ENVIRONMENT):
        done = CliRunner().invoke(
            main, ["check", "-c", str(CONFIG)], env={**ENVIRONMENT, **({lack: ""} if lack else {})}
        )
        assert done.exit_code == (2 if lack else 0), done.output
    assert ENVIRONMENT.keys() <= SERVICES["proxy"]["environment"].keys()


def test_instances_prove_that_they_are_of_this_site() -> None:
    """Each has the secret that the proxy asks for, and compose starts nothing without one."""
    wanted = SERVICES["proxy"]["environment"]["HEALTH_SECRET"]
    assert wanted.startswith("${HEALTH_SECRET:?")
    for name in CHATS:
        assert SERVICES[name]["environment"]["CHAINLIT_PROXY_HEALTH_SECRET"] == wanted
    secret = load(CONFIG, environ=ENVIRONMENT).health.secret
    assert secret is not None
    assert [one.get_secret_value() for one in secret] == ["some-secret"]


def test_every_instance_is_a_backend() -> None:
    """Each by its own name, on the port that its image listens on, in a network that the proxy is in."""
    config = load(CONFIG, environ=ENVIRONMENT)
    assert [backend.name for backend in config.backends] == CHATS
    (words,) = [command(rest) for word, rest in STEPS if word == "CMD" and "replica" in rest]
    parse(words)
    for backend in config.backends:
        url = urlsplit(backend.url)
        assert url.hostname == backend.name
        assert str(url.port) == words[words.index("--port") + 1]
        assert set(SERVICES[backend.name]["networks"]) & set(SERVICES["proxy"]["networks"])


def test_published_ports_are_listened_on() -> None:
    """What is published is where the proxy listens; only this machine reaches the admin listener."""
    config = load(CONFIG, environ=ENVIRONMENT)
    listened = {address.port for address in (*config.listen, config.admin.listen)}
    published = [port.rsplit(":", 2) for port in SERVICES["proxy"]["ports"]]
    assert {int(inner) for _, _, inner in published} == listened
    assert {host for host, _, inner in published if int(inner) == config.admin.listen.port} == {"127.0.0.1"}


def test_there_is_time_to_leave() -> None:
    """Compose waits longer than the proxy takes."""
    config = load(CONFIG, environ=ENVIRONMENT)
    assert int(SERVICES["proxy"]["stop_grace_period"].rstrip("s")) > config.timeouts.shutdown


def test_grafana_finds_the_dashboard_and_prometheus() -> None:
    """The source is the service Prometheus, the folder of dashboards the one in which ours is mounted."""
    grafana = ROOT / "deploy/compose/grafana"
    source = yaml.safe_load((grafana / "datasources/source.yaml").read_text(encoding="utf-8"))
    providers = yaml.safe_load((grafana / "dashboards/dashboards.yaml").read_text(encoding="utf-8"))
    assert urlsplit(source["datasources"][0]["url"]).hostname in SERVICES
    folder = providers["providers"][0]["options"]["path"]
    mounted = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    assert mounted[f"./{DASHBOARD.parent.relative_to(ROOT)}"] == folder
    for kind in ("datasources", "dashboards"):
        assert mounted[f"./{(grafana / kind).relative_to(ROOT)}"] == f"/etc/grafana/provisioning/{kind}"
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{folder}/{DASHBOARD.name}"


@pytest.mark.system
def test_promtool_accepts_the_configuration(tmp_path: Path) -> None:
    """Prometheus would start with it, and finds the alerts, where both are mounted."""
    programs = find()
    if programs is None:
        pytest.fail(MISSING, pytrace=False)
    for volume in SERVICES["prometheus"]["volumes"]:
        source, _, target = volume.removesuffix(":ro").partition(":")
        if source.startswith("."):
            shutil.copytree(ROOT / source, tmp_path / target.lstrip("/"))
    (told,) = [word for word in SERVICES["prometheus"]["command"] if word.startswith("--config.file=")]
    file = str(tmp_path / told.partition("=")[2].lstrip("/"))
    done = subprocess.run(
        [programs[0], "check", "config", file], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rule files found" in done.stdout
    (job,) = yaml.safe_load(Path(file).read_text(encoding="utf-8"))["scrape_configs"]
    alerts = (ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8")
    assert {job["job_name"]} == set(re.findall(r'job="([^"]+)"', alerts))
