"""`chainlit-proxy completion`: what a shell has to read so that the Tab key knows the commands."""

import click
from click.shell_completion import get_completion_class

NAME, VARIABLE = "chainlit-proxy", "_CHAINLIT_PROXY_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a shell's script for completion by the Tab key.

    For bash put the line `eval "$(chainlit-proxy completion bash)"` into ~/.bashrc, for zsh the same with zsh
    into ~/.zshrc, for fish `chainlit-proxy completion fish | source` into ~/.config/fish/config.fish.
    """
    completes = get_completion_class(shell)
    assert completes is not None  # it is one of those
    click.echo(completes(ctx.find_root().command, {}, NAME, VARIABLE).source(), nl=False)
