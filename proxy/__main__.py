"""`python -m proxy` is the same as the command `chainlit-proxy`."""

from proxy.cli import main

if __name__ == "__main__":
    main()
