"""The reference of the configuration, made from the models: `python -m proxy.config.reference`.

It prints `docs/configuration.md`; a test compares the two. The words of each key stand at its field,
what is said here is only what concerns the file as a whole.
"""

import sys
from typing import Any

import yaml

from proxy.config.dump import plain
from proxy.config.fields import KEYS, Key

_INTRODUCTION = """\
# Configuration

`chainlit-proxy serve -c proxy.yaml` reads one YAML file; for `run` a file is optional. `serve` and
`check` also accept the file as an argument, and `-` for standard input; otherwise they read
`proxy.yaml` in the working directory. Only the `url` of a backend is required:

```yaml
backends:
  - http://127.0.0.1:8001
  - {url: http://127.0.0.1:8002, name: b}
```

`config.example.yaml` contains every key with its default. Command-line options override the file.

`chainlit-proxy check -c proxy.yaml` validates a file, with `--for run` one for `run`. With `--print` it
prints every key in effect, secrets as `"***"`; with `--changed` only those that differ from the defaults.

Editors that use the YAML language server complete and check the keys: write the schema with
`chainlit-proxy schema > proxy.schema.json`, and begin your file with
`# yaml-language-server: $schema=proxy.schema.json`.

This page is generated: `python -m proxy.config.reference > docs/configuration.md`.

## Rules

- A duration is a number of seconds, or has a unit: `500ms`, `30s`, `5m`, `1h`, `2d`, `1m30s`.
- A size is a number of bytes, or has a unit: `32k`, `512MB`, `512MiB`, `1g`, all powers of 1024.
- Booleans are `true`, `yes`, `on` and `false`, `no`, `off`. The case of words does not matter.
- Relative paths start at the folder of the file that names them.
- A key that takes a list also takes a single value.
- `${NAME}` is the value of an environment variable. If it is unset or empty, the file is invalid.
  `${NAME:-default}` gives a default for both cases; `${NAME:-}` leaves a token or a secret unset. `$${`
  is a literal `${`.
- A value in quotes is text: `interval: "5"` is an error, `interval: ${INTERVAL}` is a number.
- A value that begins with `[`, such as `"[::]:8000"`, needs quotes.
- An error ends the command with status 2. It reports all errors at once:

```text
proxy.yaml:7: health.interval: must be a duration such as 30s, 5m or a number of seconds, greater than 0 ...
proxy.yaml:9: health.timeot: unknown key, did you mean 'timeout'?
proxy.yaml:12: admin.token: environment variable ADMIN_TOKEN is not set: export it, or write ...
```

The tables give the limits of a number, such as *from 1*. Numbers are whole, except seconds and those called
*number*.
"""


def reference() -> str:
    """Return the text of `docs/configuration.md`."""
    parts = [_INTRODUCTION]
    for key in KEYS.values():
        if key.section is not None:
            parts.append(_section(key))
        elif len(key.path) == 1:
            facts = f"Default {default_of(key)}. Allowed: {key.allowed}."
            parts.append(f"## {_name(key)}\n\n{key.description}\n\n{facts}\n")
    return "\n".join(parts)


def default_of(key: Key) -> str:
    """Return the default of a key as the reference shows it."""
    if key.path == ("backends", "name"):
        return "from the url"
    if key.field.is_required():
        return "required"
    if key.field.default is None:
        return "not set"
    value: Any = plain(key.field.default)
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return f"`{text.split('...')[0].strip()}`"


def _section(key: Key) -> str:
    rows = [below for below in KEYS.values() if below.path[:-1] == key.path and below.section is None]
    lines = [f"{'#' * (len(key.path) + 1)} {_name(key)}", "", key.description, ""]
    if key.takes_list:
        lines[2] += " A list; each entry has these keys:"
    if rows:
        lines += ["| key | default; allowed | what it does |", "|---|---|---|"]
        lines += [
            f"| `{_name(row)}` | {default_of(row)}; {row.allowed} | {row.description} |" for row in rows
        ]
        lines.append("")
    return "\n".join(lines)


def _name(key: Key) -> str:
    return ".".join(key.path)


if __name__ == "__main__":
    sys.stdout.write(reference())
