"""Commands whose status is that of a command in a guest: vmctl's own failures end with 125."""

from __future__ import annotations

from typing import Any

import click

from vmctl import errors

OWN_FAILURE = 125
"""Status where vmctl itself failed, as docker has it."""


class GuestCommand(click.Command):
    """Turns the status of every failure of vmctl's own into 125."""

    def make_context(self, *words: Any, **more: Any) -> click.Context:
        """Read the words of the command line; raises UsageError with status 125."""
        try:
            return super().make_context(*words, **more)
        except click.UsageError as problem:
            raise self._refused(problem) from problem

    def invoke(self, ctx: click.Context) -> Any:
        """Carry it out; raises every failure but an interruption and a timeout with status 125."""
        try:
            return super().invoke(ctx)
        except click.UsageError as problem:
            raise self._refused(problem) from problem
        except errors.VmctlError as problem:
            from vmctl.guest import remote

            if not isinstance(problem, errors.InterruptError | remote.CommandTimeoutError):
                problem.exit_code = OWN_FAILURE
            raise

    def _refused(self, problem: click.UsageError) -> errors.UsageError:
        called = problem.ctx.info_name if problem.ctx is not None else self.name
        failure = errors.UsageError(problem.format_message(), hint=f"See: vmctl {called} --help")
        failure.exit_code = OWN_FAILURE
        return failure
