"""The external provider of GARM: garm."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from vmctl import errors


class _Provider(click.Command):
    """A command that ends with GARM's statuses: 30 not found, 31 duplicate, 1 all else."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except errors.VmctlError as problem:
            from vmctl.runner.ci import garm as provider

            problem.exit_code = provider.status(problem)
            raise


@click.command(cls=_Provider)
def garm() -> None:
    """Be a provider of GARM: make machines that are runners of GitHub, Gitea or Forgejo.

    GARM says by the environment and on standard input what it wants, and reads JSON. For its
    configuration, not for people: docs/ci/garm.md has the files to copy.
    """
    from vmctl.runner.ci import garm as provider
    from vmctl.runner.ci.garm_terms import Call, Command
    from vmctl.ui import terminal

    call = Call.of(os.environ)
    stdin = b""
    if call.command is Command.CREATE:
        if sys.stdin is None or terminal.is_tty(sys.stdin):
            raise errors.UsageError("CreateInstance needs a bootstrap (JSON) on standard input.")
        stdin = sys.stdin.buffer.read()
    answer = provider.carry_out(call, stdin)
    if answer:
        terminal.put(answer)
