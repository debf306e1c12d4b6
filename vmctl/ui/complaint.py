"""How errors look: `error:` and a sentence, what the other program said, `hint:` and a command."""

from __future__ import annotations

import contextlib
import sys
import textwrap

from vmctl import errors
from vmctl.ui import escape, palette, terminal

_INDENT = "    "


def show(problem: Exception, *, as_json: bool = False, debug: bool = False) -> int:
    """Tell the user about `problem` on standard error and return the exit status.

    `as_json` puts an object on standard output as well, for the program that asked for JSON;
    `debug` shows the traceback.
    """
    if debug:
        import traceback

        _say("".join(traceback.format_exception(problem)).rstrip("\n"))
    failure = problem if isinstance(problem, errors.VmctlError) else own_error(problem, debug)
    _say(text(failure, terminal.of(sys.stderr)))
    if as_json:
        from vmctl.ui import json_out

        with contextlib.suppress(OSError):  # `main` reports broken output once, at the end
            json_out.emit({"error": as_data(failure)})
    return failure.exit_code


def text(failure: errors.VmctlError, out: terminal.Terminal) -> str:
    """Return the lines that a person sees."""
    if isinstance(failure, errors.UsageError):
        from vmctl.spec import problems

        if isinstance(failure, problems.SpecError):
            # Each problem has its own `error:` after the place that editors can jump to.
            report = problems.render(failure.problems, unseen=failure.unseen)
            return "\n".join([escape.printable(report), *_hint(failure, out)])
    message = escape.printable(failure.message)
    if not isinstance(failure, errors.InterruptError):
        message = f"{out.painted('error:', f'bold {palette.BAD}')} {message}"
    lines = [message]
    if failure.details:
        lines.append(textwrap.indent(escape.printable(failure.details.strip("\n")), _INDENT))
    return "\n".join(lines + _hint(failure, out))


def _hint(failure: errors.VmctlError, out: terminal.Terminal) -> list[str]:
    if not failure.hint:
        return []
    return [f"{out.painted('hint:', palette.BUSY)} {escape.printable(failure.hint)}"]


def as_data(failure: errors.VmctlError) -> dict[str, object]:
    """Return what a program sees; `code` is the exit status."""
    data: dict[str, object] = {
        "message": failure.message,
        "hint": failure.hint,
        "code": failure.exit_code,
    }
    if isinstance(failure, errors.UsageError):
        from vmctl.spec import problems

        if isinstance(failure, problems.SpecError):
            return data | failure.as_dict()
    return data | {"details": failure.details} if failure.details else data


def own_error(problem: Exception, debug: bool = False) -> errors.VmctlError:
    """Return what is said about an exception that nobody foresaw."""
    what = f"{type(problem).__name__}: {problem}" if str(problem) else type(problem).__name__
    return errors.VmctlError(
        f"vmctl met an error of its own: {escape.one_line(what)}.",
        hint="" if debug else "Run it again with --debug for the traceback.",
    )


def _say(line: str) -> None:
    """Write to standard error; where that is gone, there is nobody left to tell."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)
