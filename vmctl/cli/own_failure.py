"""Commands whose status is that of a command in a guest: vmctl's own failures end with 125."""

from __future__ import annotations

import errno
from typing import Any

import click

from vmctl import errors

OWN_FAILURE = 125
"""Status where vmctl itself failed, as docker has it."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            # A reader who left early is treated as everywhere: see `cli`.
            raise
        except errors.VmctlError as problem:
            from vmctl.guest import remote

            if not isinstance(problem, errors.InterruptError | remote.CommandTimeoutError):
                problem.exit_code = OWN_FAILURE
            raise
        except Exception as problem:
            raise _unforeseen(problem) from problem

    def _refused(self, problem: click.UsageError) -> errors.UsageError:
        called = problem.ctx.info_name if problem.ctx is not None else self.name
        failure = errors.UsageError(problem.format_message(), hint=f"See: vmctl {called} --help")
        failure.exit_code = OWN_FAILURE
        return failure


def _unforeseen(problem: Exception) -> errors.VmctlError:
    """Return what is said of a failure that nobody foresaw: it is not the command's."""
    if isinstance(problem, OSError) and problem.errno in _FULL:
        what = f"'{problem.filename}'" if problem.filename else "Output"
        failure = errors.VmctlError(
            f"{what} could not be written: {problem.strerror}.",
            hint="Free some space, or send the output elsewhere.",
        )
    else:
        from vmctl.ui import complaint

        failure = complaint.own_error(problem)
    failure.exit_code = OWN_FAILURE
    return failure
