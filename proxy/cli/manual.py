"""The manual page, made from the commands: `python -m proxy.cli.manual > deploy/man/chainlit-proxy.1`.

A test compares the two. The words of each command and option stand where they are defined; what is said
here is only what concerns all of them. The format is that of man(7).
"""

import sys

import click

import proxy
from proxy.cli import main

_AROUND = """\
.SH EXIT STATUS
.TP
.B 0
Done, or ended as asked.
.TP
.B 1
It failed while running.
.TP
.B 2
Something has to be put right: the configuration, the command line, a port that is taken.
.SH TIMES
SECONDS is a number of them, or has a unit: 500ms, 30s, 5m, 1h, 2d, 1m30s.
.SH SIGNALS
.TP
.B SIGTERM, SIGINT
Leave within \\fItimeouts.shutdown\\fR; a second one ends at once.
.TP
.B SIGHUP
Read the configuration again; replicas of \\fBrun\\fR are replaced one by one as well.
.SH FILES
A configuration is YAML. \\fBcheck \\-\\-print\\fR prints every key as it takes effect.
.PP
Sockets that systemd hands over (\\fBsd_listen_fds\\fR(3)) serve the addresses of \\fIlisten\\fR and
\\fIadmin.listen\\fR that they listen on.
"""


def manual() -> str:
    """Return the page."""
    head = (
        f'.TH CHAINLIT\\-PROXY 1 "" "chainlit\\-sticky\\-proxy {proxy.__version__}" "User Commands"\n'
        ".SH NAME\n"
        f"chainlit\\-proxy \\- {_escape(_decapitalised(_text(main)))}\n"
        ".SH SYNOPSIS\n"
        ".B chainlit\\-proxy\n"
        ".I COMMAND\n[\\fIARGUMENTS\\fR]\n"
        ".SH COMMANDS\n"
    )
    parts = [head]
    with main.make_context("chainlit-proxy", [], resilient_parsing=True) as context:
        for name in main.list_commands(context):
            command = main.all()[name]
            with click.Context(command, parent=context, info_name=name) as inner:
                parts.append(_command(command, inner))
        parts.append(".SH ENVIRONMENT\n")
        parts += _environment()
    return "".join([*parts, _AROUND])


def _command(command: click.Command, context: click.Context) -> str:
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f".SS {_escape(str(context.info_name))} {_escape(usage)}", _escape(_text(command))]
    for parameter in command.params:
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is not None:
            lines += [".TP", f"\\fB{_escape(record[0])}\\fR", _escape(record[1])]
    return "\n".join(lines) + "\n"


def _environment() -> list[str]:
    """Variables that stand for options, each with the option's own words."""
    told = {
        str(parameter.envvar): parameter
        for command in main.all().values()
        for parameter in command.params
        if parameter.envvar and isinstance(parameter, click.Option)
    }
    return [
        f".TP\n.B {_escape(name)}\nAs \\fB{_escape(option.opts[0])}\\fR. {_escape(option.help or '')}\n"
        for name, option in sorted(told.items())
    ]


def _text(command: click.Command) -> str:
    """The help of a command as paragraphs without line breaks."""
    paragraphs = (command.help or "").replace("\b", "").split("\n\n")
    return "\n.PP\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _decapitalised(text: str) -> str:
    return text[:1].lower() + text[1:].removesuffix(".")


def _escape(text: str) -> str:
    r"""Text for roff: dashes that can be copied, no line that begins as a request but `.PP`."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("\n.PP\n", "\0")
    lines = ["\\&" + line if line.startswith((".", "'")) else line for line in text.split("\n")]
    return "\n".join(lines).replace("\0", "\n.PP\n")


if __name__ == "__main__":
    sys.stdout.write(manual())
