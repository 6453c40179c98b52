"""The command `chainlit-proxy`, and `python -m chainlit_proxy`.

An app's folder is on the import path of this command, too, where PYTHONPATH names it, as in many images. A
`proxy.py` there is not what is to be started, so the implementation is found by its place.
"""

from chainlit_proxy import _PROXY, _load


def main() -> None:
    """Run the command that was given; ends the process."""
    _load("proxy", _PROXY)
    from proxy.cli import main as command  # noqa: PLC0415 - of the package that was just loaded

    command()


if __name__ == "__main__":
    main()
