"""Backends that stand in a file of their own, written by a program: `discovery.file`.

It is YAML or JSON: a list of entries as those of `backends`, or of groups as Prometheus' `file_sd` has
them (https://prometheus.io/docs/prometheus/latest/configuration/configuration/#file_sd_config), or both.
A group's label `__scheme__` is http or https, its label `weight` is the weight of each of its targets;
other labels are none of ours. Mistakes are told as those of the configuration, at their lines.
"""

from collections.abc import Iterator
from pathlib import Path

import yaml

from proxy.config.document import read
from proxy.config.load import find_files, validated
from proxy.config.models import BackendSettings
from proxy.config.problems import ConfigError, Problem

_STR = "tag:yaml.org,2002:str"
_MAP = "tag:yaml.org,2002:map"


def found_backends(data: bytes, name: str) -> tuple[BackendSettings, ...]:
    """The backends of a list; messages call it `name`. Raises ConfigError; an empty list is a mistake."""
    document = read(data, name, {}, _as_configuration)
    find_files(document.data, Path(name).absolute().parent)
    backends = validated(document, {}, look_at_files=True, alone=True).backends
    if not backends:
        raise ConfigError([Problem(name, 1, "", "must list at least one backend")])
    return backends


def _as_configuration(node: yaml.Node) -> yaml.Node:
    """The list as the `backends` of a configuration, each target of a group as an entry of its own."""
    if isinstance(node, yaml.SequenceNode):
        node.value = [entry for item in node.value for entry in _entries(item)]
    key = yaml.ScalarNode(_STR, "backends", node.start_mark)
    return yaml.MappingNode(_MAP, [(key, node)], node.start_mark)


def _entries(item: yaml.Node) -> Iterator[yaml.Node]:
    fields = _fields(item)
    targets = fields.get("targets")
    if not isinstance(targets, yaml.SequenceNode):
        yield item
        return
    labels = _fields(fields.get("labels"))
    scheme, weight = labels.get("__scheme__"), labels.get("weight")
    for target in targets.value:
        where, url = target.start_mark, target
        if isinstance(target, yaml.ScalarNode):
            text = f"{scheme.value if scheme else 'http'}://{target.value}"
            url = yaml.ScalarNode(_STR, text, where, style="'")
        pairs = [(yaml.ScalarNode(_STR, "url", where), url)]
        if isinstance(weight, yaml.ScalarNode):  # labels are text there, whatever they hold
            number = yaml.ScalarNode("", weight.value, weight.start_mark)
            pairs.append((yaml.ScalarNode(_STR, "weight", weight.start_mark), number))
        yield yaml.MappingNode(_MAP, pairs, where)


def _fields(node: yaml.Node | None) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}
