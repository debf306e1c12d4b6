"""Shell completion: the scripts, and the values that arguments can take."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from vmctl.cli import app, context
from vmctl.store import layout
from vmctl.ui import terminal

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SHELLS = ("bash", "zsh", "fish")

_HELP = """Print the completion script of a shell.

\b
bash:  vmctl completion bash > ~/.local/share/bash-completion/completions/vmctl
zsh:   vmctl completion zsh > "${fpath[1]}/_vmctl"
fish:  vmctl completion fish > ~/.config/fish/completions/vmctl.fish
"""


@click.command(help=_HELP)
@click.argument("shell", type=click.Choice(SHELLS))
@context.options
def completion(_context: context.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import ShellComplete, get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise LookupError(f"click has no completion for {shell}")
    complete = kind(app.group, {}, "vmctl", app.COMPLETE_VARIABLE)
    # The base class's method: bash's own runs bash first, to ask for its version.
    terminal.put(ShellComplete.source(complete))


def store_names() -> list[str]:
    """Return the names of the machines in the store, from the directory alone; never raises."""
    try:
        with os.scandir(layout.Layout.default().machines) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except (OSError, RuntimeError):  # RuntimeError: there is no home directory
        return []


def machine_names(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete an argument that is a machine's name (for `shell_complete=`)."""
    # Every command names this function, and few are completed.
    from click.shell_completion import CompletionItem

    given = ctx.params.get(parameter.name or "") or ()
    taken = given if isinstance(given, tuple | list) else ()
    return [
        CompletionItem(name)
        for name in store_names()
        if name.startswith(incomplete) and name not in taken
    ]


def machines_and_specs(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete an argument that is a machine's name or a spec file (for `shell_complete=`)."""
    from click.shell_completion import CompletionItem

    names = machine_names(ctx, parameter, incomplete)
    return names or [CompletionItem(incomplete, type="file")]


def copy_places(
    _ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete an argument that is a file, or the name of a machine with a colon."""
    from click.shell_completion import CompletionItem

    names = [name for name in store_names() if name.startswith(incomplete)]
    if "/" in incomplete or not names:
        return [CompletionItem(incomplete, type="file")]
    return [CompletionItem(f"{name}:") for name in names]
