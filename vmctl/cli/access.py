"""Commands that get in: ssh, ssh-config, exec, cp."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from vmctl import errors
from vmctl.cli import completion
from vmctl.cli import context as contexts
from vmctl.cli import variables as environment
from vmctl.cli.lifecycle import seconds
from vmctl.cli.own_failure import GuestCommand

if TYPE_CHECKING:
    from vmctl.guest.remote import Streams


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("name", shell_complete=completion.machine_names)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@contexts.options
def ssh(context: contexts.Context, name: str, words: tuple[str, ...]) -> None:
    """Log in to a machine with the OpenSSH client.

    With COMMAND, run that instead of a shell; as with ssh itself, its words are joined by blanks
    and read by the guest's shell. `vmctl exec` keeps them as they are.
    """
    from vmctl import process
    from vmctl.guest import ssh as client
    from vmctl.hypervisor import connection as connections
    from vmctl.lifecycle import access as accesses
    from vmctl.store.layout import Layout
    from vmctl.ui import terminal

    command = _after_dashes(words)
    layout = Layout.default()
    with connections.opened(context.uri, layout) as connection:
        access = accesses.find(connection, layout, name)
    person = terminal.is_tty(sys.stdin)
    try:
        client.connect(access)
    except errors.GuestError:
        # Our key is not taken. A person may have another one, or know a password.
        if not person:
            raise
    argv = client.command(access, command, batch=not person, shared=True)
    process.replace(argv)


def _after_dashes(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command behind `--`; raises UsageError for an option that came too late."""
    if words and words[0] == "--":
        return words[1:]
    if words and words[0].startswith("-"):
        raise errors.UsageError(
            f"'{words[0]}' stands behind the machine's name.",
            hint="Options come before the name; a command that begins so comes after --.",
        )
    return words


@click.command("ssh-config")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=completion.machine_names)
@contexts.options
def ssh_config(context: contexts.Context, names: tuple[str, ...]) -> None:
    """Print what ~/.ssh/config can include, so that `ssh NAME`, scp and others work.

    Without NAME: every machine that ssh can reach now.
    """
    from vmctl.guest import ssh as client
    from vmctl.hypervisor import connection as connections
    from vmctl.lifecycle import access as accesses
    from vmctl.store.layout import Layout
    from vmctl.ui import terminal

    layout = Layout.default()
    with connections.opened(context.uri, layout) as connection:
        found, refused = accesses.find_all(connection, layout, names)
    if names and refused:
        raise refused[0]
    terminal.put("\n".join(client.config(access) for access in found).rstrip("\n"))


@click.command(cls=GuestCommand, context_settings={"allow_interspersed_args": False})
@click.argument("name", shell_complete=completion.machine_names)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND...")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
@click.option("-i", "--interactive", is_flag=True, hidden=True)
@click.option("-n", "--no-stdin", is_flag=True, help="Give the command no input.")
@click.option(
    "-e",
    "--env",
    "variables",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Set an environment variable; without =VALUE it is passed on from here.",
)
@click.option("-w", "--workdir", default="", metavar="DIR", help="Run it in this directory.")
@click.option("-u", "--user", default="", help="Run it as this user (through su or sudo -n).")
@click.option(
    "--timeout",
    metavar="DURATION",
    callback=seconds,
    help="End the command after 90s, 5m; the status is then 124.",
)
@click.option("--agent", is_flag=True, help="Through the guest agent instead of ssh.")
@contexts.options
def exec_(  # noqa: PLR0913
    context: contexts.Context,
    *,
    name: str,
    words: tuple[str, ...],
    tty: bool,
    interactive: bool,  # noqa: ARG001  (what docker's users type; input is passed on anyway)
    no_stdin: bool,
    variables: tuple[str, ...],
    workdir: str,
    user: str,
    timeout: float | None,
    agent: bool,
) -> None:
    """Run a command in a machine, word for word, and end with its status.

    Input, output and errors are passed on as they come. Status 124: the timeout ended it;
    125: vmctl itself failed; 128 + n: signal n ended it.
    """
    from vmctl.guest.shell import Request
    from vmctl.lifecycle import command

    request = Request(
        argv=_command(words), env=dict(environment.of_words(variables)), workdir=workdir, user=user
    )
    how = command.How(uri=context.uri, timeout=timeout, terminal=tty, agent=agent)
    streams = _streams(tty=tty, no_stdin=no_stdin)
    click.get_current_context().exit(command.run(name, request, how, streams))


def _command(words: tuple[str, ...]) -> tuple[str, ...]:
    argv = _after_dashes(words)
    if not argv:
        raise errors.UsageError(
            "There is no command to run.", hint="Name it after --: vmctl exec NAME -- uname -a"
        )
    return argv


def _streams(*, tty: bool, no_stdin: bool) -> Streams:
    from vmctl.guest.remote import Streams
    from vmctl.ui.stream import Writer

    try:
        stdin = None if no_stdin or sys.stdin is None else sys.stdin.fileno()
    except (OSError, ValueError):
        stdin = None
    return Streams(
        stdin=stdin, stdout=Writer(sys.stdout, raw=tty), stderr=Writer(sys.stderr, raw=tty)
    )


@click.command()
@click.argument(
    "places", nargs=-1, metavar="SOURCE... TARGET", shell_complete=completion.copy_places
)
@click.option("-u", "--user", default="", help="Who reads or writes in the machine (su, sudo -n).")
@click.option("-r", "--recursive", is_flag=True, hidden=True)
@contexts.options
def cp(
    context: contexts.Context,
    places: tuple[str, ...],
    user: str,
    recursive: bool,  # noqa: ARG001  (what scp's users type; directories are copied anyway)
) -> None:
    """Copy files and directories into a machine, or out of it.

    NAME:PATH is in a machine, everything else on this host. Where TARGET is a directory, copies go
    into it; DIRECTORY/. stands for what is in it. Permission bits and times are kept.
    """
    from vmctl.lifecycle import copying
    from vmctl.ui import progress

    if len(places) < 2:
        raise errors.UsageError(
            "A copy needs a source and a target.", hint="For example: vmctl cp ./file web:/tmp/"
        )
    *sources, target = (copying.Place.read(word) for word in places)
    request = copying.Request(sources=tuple(sources), target=target, uri=context.uri, user=user)
    progress.follow(copying.run(request), quiet=context.quiet)
