"""Real shells that complete commands, or Debian's: `python -m tests.support.shells`."""

import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.browser import chromium
from tests.support.proxy_process import ROOT
from tests.support.terminal import WAIT, Terminal
from tests.support.waiting import wait_until

SHELLS = ("bash", "zsh", "fish")
LOADER = Path("/usr/share/bash-completion/bash_completion")  # what has bash load a file for a command
MISSING = "no shells for the tests of completion: install Debian's zsh, fish and bash-completion"
_PROMPT = "@ready@ "


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one of the shells is started in a folder that is its user's home."""

    file: str  # in deploy/completion
    place: str  # where the shell looks for it
    program: tuple[str, ...]
    start: str  # the file that it reads first
    words: str  # what that says: its prompt, and what each user of completion has there


_KINDS = {
    "bash": _Kind(
        "chainlit-proxy.bash",
        "completions/chainlit-proxy",
        ("bash", "--noprofile", "--rcfile", "{folder}/bashrc", "-i"),
        "bashrc",
        f"PS1='{_PROMPT}'; bind 'set show-all-if-ambiguous on'; . {LOADER}",
    ),
    "zsh": _Kind(
        "_chainlit-proxy",
        "_chainlit-proxy",
        ("zsh", "--no-globalrcs", "-i"),
        ".zshrc",
        f"PS1='{_PROMPT}'; unsetopt list_ambiguous; "
        "fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -D",
    ),
    "fish": _Kind(
        "chainlit-proxy.fish",
        "fish/completions/chainlit-proxy.fish",
        ("fish", "--private"),
        "fish/config.fish",
        f"function fish_prompt; echo -n '{_PROMPT}'; end",
    ),
}
_STYLE = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\(B)")
_WORD = re.compile(r"[\w-]+")
_ERASE = "\x15"  # Ctrl-U
_CONTROLLED = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""  # the terminal is the session's own, as shells want it for their jobs: ioctl_tty(2)


class Shell(Terminal):
    """An interactive shell which finds the file of deploy/completion where a package puts it."""

    def __init__(self, name: str, folder: Path, env: dict[str, str]) -> None:
        assert is_there(), MISSING
        kind = _KINDS[name]
        place, start = folder / kind.place, folder / kind.start
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / "deploy/completion" / kind.file, place)
        start.write_text(kind.words.replace("{folder}", str(folder)))
        homes = ("HOME", "ZDOTDIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "BASH_COMPLETION_USER_DIR")
        super().__init__(
            *(word.replace("{folder}", str(folder)) for word in kind.program),
            program=(sys.executable, "-c", _CONTROLLED),
            env=env | dict.fromkeys(homes, str(folder)),
        )

    def complete(self, line: str, *offered: str) -> None:
        """Type a line in place of the one that is there, and press Tab, until that is offered.

        Shells drop keys that are pressed while they get ready for the next line, or end an earlier offer.
        """
        known = len(self.text)

        def offers() -> bool:
            self.press(f"{_ERASE}{line}\t")
            return self.tells(lambda text: words <= set(_WORD.findall(_STYLE.sub("", text[known:]))), 3.0)

        words = set(offered)
        wait_until(offers, WAIT, lambda: f"{words} offered: {self.text}")


def is_there() -> bool:
    """Whether all of them are."""
    return all(shutil.which(name) for name in SHELLS) and LOADER.exists()


def main() -> int:
    """Prints the paths; non-zero with one line if some are not there."""
    if not is_there():
        chromium.install(("zsh", "fish", "bash-completion"))
    found = is_there()
    print(*(map(shutil.which, SHELLS) if found else [MISSING]), file=sys.stdout if found else sys.stderr)
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
