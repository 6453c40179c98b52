"""Kubernetes' own schemas, from the package `kubernetes-validate`, each read once for a run.

The strict ones are used: a field that the schema does not have is a mistake.
"""

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

NEWEST = "1.37"  # of those that the package knows; it is of the series that Kubernetes supports now
VERSIONS = ("1.25", "1.35", "1.36", NEWEST)  # the oldest that the chart allows, and the newest three


def mistakes(document: dict[str, Any], version: str = NEWEST) -> list[str]:
    """What is wrong with an object, each with its place. An unknown kind is an error of the test."""
    api = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", document["apiVersion"])
    found = _validator(f"{document['kind'].lower()}-{api}", version).iter_errors(document)
    return [f"{error.json_path}: {error.message}" for error in found]


@cache
def _definitions(version: str) -> Registry[Any]:
    return Resource.from_contents(_read("_definitions", version)) @ Registry()


@cache
def _validator(name: str, version: str) -> Draft202012Validator:
    schema = _read(name, version)
    return Draft202012Validator(schema, registry=Resource.from_contents(schema) @ _definitions(version))


def _read(name: str, version: str) -> Any:
    folder = files("kubernetes_validate") / f"kubernetes-json-schema/v{version}.0-local-strict"
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
