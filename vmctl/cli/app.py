"""The click group: finds commands in the table and imports a command only when it is invoked."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from vmctl import __version__, errors
from vmctl.cli import context as contexts
from vmctl.cli import overview

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMPLETE_VARIABLE = "_VMCTL_COMPLETE"
"""Set by the completion script of a shell, see `completion`."""


class Commands(click.Group):
    """The commands of the table in `overview`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Every command, in the order of the help."""
        return overview.names()

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        """Import the command; None where there is none of this name."""
        place = overview.place(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{place} is no click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that `args` begin with; raise UsageError with a suggestion."""
        command = self.get_command(ctx, args[0])
        if command is None and not ctx.resilient_parsing:
            raise unknown(args[0])
        return (args[0] if command else None), command, args[1:]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete from the table: importing every command would take longer than a keystroke."""
        from click.shell_completion import CompletionItem

        fitting = [name for name in overview.names() if name.startswith(incomplete)]
        items = [CompletionItem(name, help=overview.line(name)) for name in fitting]
        return items + click.Command.shell_complete(self, ctx, incomplete)

    def get_help(self, ctx: click.Context) -> str:  # noqa: ARG002
        """The page of the table."""
        return overview.text()


def unknown(name: str) -> errors.UsageError:
    """Return the error for a word that is no command."""
    import difflib

    close = difflib.get_close_matches(name, overview.names(), n=1)
    if close:
        hint = f"Did you mean: vmctl {close[0]}"
    elif "/" in name or name.endswith((".yaml", ".yml")):
        hint = f"To run what a file describes: vmctl up {name}"
    else:
        hint = "To see all commands: vmctl --help"
    return errors.UsageError(f"There is no command '{name}'.", hint=hint)


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="vmctl", message="%(prog)s %(version)s")
@contexts.declare
@click.pass_context
def group(ctx: click.Context) -> None:
    """From a short YAML file to a running virtual machine."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run(args: Sequence[str], context: contexts.Context) -> int:
    """Carry out a command line and return the exit status.

    A command ends with another status than 0 by raising a VmctlError, or by `ctx.exit(status)`.
    Raises VmctlError, also in place of click's own errors, and KeyboardInterrupt.
    """
    instruction = os.environ.get(COMPLETE_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(group, {}, "vmctl", COMPLETE_VARIABLE, instruction)
    try:
        with group.make_context("vmctl", list(args), obj=context) as ctx:
            group.invoke(ctx)
    except click.exceptions.Exit as end:
        return int(end.exit_code)
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.UsageError as problem:
        return refused(problem)
    except click.ClickException as problem:
        raise errors.VmctlError(_sentence(problem.format_message())) from problem
    return 0


def refused(problem: click.UsageError) -> int:
    """Raise a UsageError for click's; where only a subcommand was missing, print the help."""
    missing_subcommand = getattr(click.exceptions, "NoArgsIsHelpError", None)
    if missing_subcommand is not None and isinstance(problem, missing_subcommand):
        click.echo(problem.format_message(), err=True)
        return int(problem.exit_code)
    path = problem.ctx.command_path if problem.ctx else "vmctl"
    raise errors.UsageError(
        _sentence(problem.format_message()), hint=f"See what it takes: {path} --help"
    ) from problem


def _sentence(message: str) -> str:
    return message if message.endswith((".", "?", "!", ")")) else f"{message}."
