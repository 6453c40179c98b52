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

This page is made from the models in `proxy/config`, by
`python -m proxy.config.reference > docs/configuration.md`.

`chainlit-proxy serve -c proxy.yaml` reads one YAML file, `run` can read one as well. `serve` and `check`
take the file as an argument too, `-` as standard input, and without either read `proxy.yaml` of the
working directory. Every key has a default but the `url` of a backend, so a whole file may be as short as
this:

```yaml
backends:
  - http://127.0.0.1:8001
  - http://127.0.0.1:8002
```

A mapping in place of a url gives a backend more than that: `{url: http://127.0.0.1:8001, name: a}`.

`config.example.yaml` has every key with its default. `chainlit-proxy check -c proxy.yaml` says whether a file
is right: `proxy.yaml is valid: 2 backends, listens on 0.0.0.0:8000`. With `--print` it prints every key as it
takes effect, secrets as `"***"`, with `--changed` those that differ from the defaults. For a file of `run`,
which has no backends, say `chainlit-proxy check -c run.yaml --for run`.

Editors complete and check the keys with `chainlit-proxy schema > proxy.schema.json` and, for those that speak
to the YAML language server, this as the first line of the file:
`# yaml-language-server: $schema=proxy.schema.json`.

An option of the command line wins over the file, and the file over the default. Two defaults of `run` are
others, as it is for one developer: `listen` is `127.0.0.1:8000` and `log.access` is `false`, unless the file
or an option has them.

## Rules

- A duration is a number of seconds, or has a unit: `500ms`, `30s`, `5m`, `1h`, `2d`, `1.5h`, `1m30s`. A size
  is a number of bytes, or has a unit: `32k`, `512KB`, `512MiB`, `1g`. All of these are powers of 1024, as in
  nginx and Docker: 32k, 32KB and 32KiB are the same.
- True and false may be written `true`, `yes`, `on` and `false`, `no`, `off`. The case of words does not
  matter.
- A relative path is one from the folder of the file that names it; on standard input, from the working
  directory.
- A key that takes a list also takes one value alone.
- A section without content, all its keys commented out for instance, has its defaults.
- `${NAME}` is the value of an environment variable; one that is not set, or empty, is a mistake.
  `${NAME:-default}` has a default for both cases; `${NAME:-}` leaves a token or a secret unset.
  `$${` is a plain `${`. Variables work in values, not in keys, and a value cannot add keys.
- `$NAME` is a mistake, because a variable was meant; in single quotes, as in `'$NAME'`, it is plain text.
- A value in quotes is text: `interval: "5"` is a mistake, `interval: ${INTERVAL}` is a number.
- What YAML 1.1 takes for a number in base 60 or 8 is a mistake: write 90 for `1:30`, and 400 for `0400`.
- A value that begins with `[`, such as `"[::]:8000"`, needs quotes.
- Anchors, aliases and merge keys (`<<`) work. YAML tags (`!name`) do not.
- A mistake ends the command with status 2. All mistakes are shown at once, each in one line with the file,
  the line, the key and what is allowed:

```text
proxy.yaml:7: health.interval: must be a duration such as 30s, 5m or a number of seconds, greater than 0 ...
proxy.yaml:9: health.timeot: unknown key, did you mean 'timeout'?
proxy.yaml:12: admin.token: environment variable ADMIN_TOKEN is not set: export it, or write ...
```
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
        lines += ["| key | default | allowed | what it does |", "|---|---|---|---|"]
        lines += [
            f"| `{_name(row)}` | {default_of(row)} | {row.allowed} | {row.description} |" for row in rows
        ]
        lines.append("")
    return "\n".join(lines)


def _name(key: Key) -> str:
    return ".".join(key.path)


if __name__ == "__main__":
    sys.stdout.write(reference())
