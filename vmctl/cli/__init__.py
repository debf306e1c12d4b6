"""The command line. `main` is the entry point, and the one place where errors end.

Exit status: 0, or a VmctlError's own, or 130 after Ctrl-C, SIGTERM or SIGHUP, and 1 for every other
failure. A reader of standard output that leaves early (`vmctl ps | head -1`) changes nothing where
results are printed through `ui.terminal.put`; a command that was cut short by it ends, silently,
with 1.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

from vmctl import __version__, errors

_INTERRUPTED = 130
_GARBAGE_THRESHOLD = 100_000


def main() -> None:
    """Run the command line of this process and exit with its status."""
    _treat_termination_as_interruption()
    # A short life: collecting cycles costs more time than it saves memory.
    gc.set_threshold(_GARBAGE_THRESHOLD)
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Run the command line `args` and return the exit status; nothing is raised."""
    _prepare_streams()
    status = _guarded(args, as_json=_wants_json(args))
    try:
        return _flushed(status)
    except KeyboardInterrupt:
        return _INTERRUPTED


def _guarded(args: Sequence[str], *, as_json: bool) -> int:
    debug = "--debug" in _own(args)
    try:
        return _carry_out(args)
    except KeyboardInterrupt:
        interrupted = errors.InterruptError("Interrupted.")
        return _report(interrupted, as_json=as_json, debug=False)
    except OSError as problem:
        if _output_problem() is not None or _reader_left(problem):
            return 1  # `_flushed` says what there is to say
        return _report(_as_writing(problem) or problem, as_json=as_json, debug=debug)
    except Exception as problem:  # noqa: BLE001  (the last line before the user)
        return _report(problem, as_json=as_json, debug=debug)


def _carry_out(args: Sequence[str]) -> int:
    if "_VMCTL_COMPLETE" not in os.environ:
        # The two pages that need no command are not worth the time that importing click takes.
        if list(args) in ([], ["-h"], ["--help"]):
            from vmctl.cli import overview

            sys.stdout.write(overview.text() + "\n")
            return 0
        if list(args) == ["--version"]:
            sys.stdout.write(f"vmctl {__version__}\n")
            return 0
    # Looking for plugins of others costs pydantic 10 ms at each start, and nobody else's code has a
    # say in how a spec is read.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from vmctl.cli import app, context

    return app.run(args, context.Context())


def _own(args: Sequence[str]) -> Sequence[str]:
    """The words that are vmctl's own, not those of a guest command after `--`."""
    return args[: args.index("--")] if "--" in args else args


def _wants_json(args: Sequence[str]) -> bool:
    """True where standard output is to be JSON, errors too."""
    own = _own(args)
    if "--json" not in own:
        return False
    from vmctl.cli import overview

    command = next((word for word in own if word in overview.names()), "")
    return command not in overview.JSON_IS_A_FILE


def _prepare_streams() -> None:
    """Make standard streams that always take text: closed ones, and narrow encodings."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (lives as long as the process)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _treat_termination_as_interruption() -> None:
    """Let SIGTERM and SIGHUP do what Ctrl-C does, so that the same code cleans up after all.

    A signal that the parent had ignored (nohup) stays ignored.
    """
    import signal

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def _report(problem: Exception, *, as_json: bool, debug: bool) -> int:
    from vmctl.ui import complaint

    try:
        return complaint.show(problem, as_json=as_json, debug=debug)
    except KeyboardInterrupt:
        return _INTERRUPTED


def _output_problem() -> OSError | None:
    """Write out what is left in standard output's buffer and return what hinders that."""
    try:
        sys.stdout.flush()
    except OSError as problem:
        return problem
    except ValueError:  # it was closed on purpose
        return None
    return None


def _reader_left(problem: OSError) -> bool:
    """True where `problem` came from a pipe, and the pipe that nobody reads is standard output."""
    if not isinstance(problem, BrokenPipeError):
        return False
    import select

    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _descriptor, event in poll.poll(0))
    except (OSError, ValueError):
        return False


def _as_writing(problem: OSError) -> errors.VmctlError | None:
    """Return what is said where a disk is full in the middle of a command, else None."""
    import errno

    if problem.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return None
    what = f"'{problem.filename}'" if problem.filename else "Output"
    return errors.VmctlError(
        f"{what} could not be written: {problem.strerror}.",
        hint="Free some space, or send the output elsewhere.",
    )


def _flushed(status: int) -> int:
    """Return `status`, or 1 where standard output could not be written (disk full)."""
    problem = _output_problem()
    if problem is None:
        return status
    # What is left in the buffer would fail again, with a message of the interpreter's own.
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
    os.close(sink)
    if isinstance(problem, BrokenPipeError):
        return status
    failure = _as_writing(problem) or errors.VmctlError(
        f"Output could not be written: {problem.strerror or problem}."
    )
    _report(failure, as_json=False, debug=False)
    return status or failure.exit_code
