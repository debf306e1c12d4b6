"""One command in a throw-away machine: run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from vmctl import errors
from vmctl.cli import completion
from vmctl.cli import context as contexts
from vmctl.cli import variables as environment
from vmctl.cli.lifecycle import seconds
from vmctl.cli.own_failure import GuestCommand

if TYPE_CHECKING:
    from vmctl.runner.job import Job
    from vmctl.runner.matrix import Combination
    from vmctl.runner.run import Request, Runs
    from vmctl.runner.wanted import Wanted

_MODES = ("auto", "full", "hardware", "paravirt", "tcg-virtio")


_Function = Callable[..., Any]

_LINES = click.File("r", encoding="utf-8", errors="surrogateescape")
"""Text whose other bytes are passed on as they are, as those of the command line are."""


def _of_the_machine(command: _Function) -> _Function:
    """Give the command the options that say what runs it."""
    for option in (
        click.option("--allow-outside", is_flag=True, help="Allow files outside the directory."),
        click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Set a key."),
        click.option("--disk", metavar="SIZE", help="Size of the root disk."),
        click.option("--memory", metavar="SIZE", help="Main memory: 512MiB, 4GiB."),
        click.option("--cpus", type=int, metavar="N", help="Virtual CPUs."),
        click.option("--nested", is_flag=True, help="With VT-x or AMD-V; tried before the job."),
        click.option("--mode", type=click.Choice(_MODES), help="How the guest is virtualised."),
        click.option(
            "--pool", default="", metavar="NAME", help="In a warm machine of a pool; no SPEC."
        ),
        click.option("--warm", is_flag=True, help="In one that is kept, reset, for the next run."),
    ):
        command = option(command)
    return command


def _of_the_job(command: _Function) -> _Function:
    """Give the command the options that say what is done in the machine."""
    out = "--copy-out"
    for option in (
        click.option("--timeout", metavar="DURATION", callback=seconds, help="End it after 10m."),
        click.option("-n", "--no-stdin", is_flag=True, help="Give the command no input."),
        click.option("-u", "--user", default="", help="Run it as this user (su or sudo -n)."),
        click.option("-w", "--workdir", default="", metavar="DIR", help="Run it there."),
        click.option(out, multiple=True, metavar="THERE:HERE", help="Copy out, also on failure."),
        click.option("--copy-in", multiple=True, metavar="HERE:THERE", help="Copy in first."),
        click.option("--env-file", type=_LINES, help="Lines of NAME=VALUE to set."),
        click.option(
            "-e",
            "--env",
            "variables",
            multiple=True,
            metavar="NAME[=VALUE]",
            help="Set a variable; without =VALUE it is passed on from here, unseen by others.",
        ),
    ):
        command = option(command)
    return command


def _of_the_report(command: _Function) -> _Function:
    """Give the command the options that say how often it runs, and what is told of it."""
    for option in (
        click.option("--report", default="", metavar="FILE", help="Write the report to a file."),
        click.option("--json", "as_json", is_flag=True, help="Print a report; output to stderr."),
        click.option("--timings", is_flag=True, help="Say where the time went."),
        click.option("--serial-log", default="", metavar="FILE", help="Keep the guest's console."),
        click.option("--keep-on-failure", is_flag=True, help="Leave the machine to look into."),
        click.option("--jobs", type=click.IntRange(1, 64), default=1, help="So many at a time."),
        click.option("--matrix", multiple=True, metavar="KEY=A,B", help="Once for each value."),
    ):
        command = option(command)
    return command


@click.command(cls=GuestCommand)
@click.argument(
    "what", required=False, metavar="SPEC|IMAGE", shell_complete=completion.machines_and_specs
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND...")
@_of_the_machine
@_of_the_job
@_of_the_report
@contexts.options
def run(
    context: contexts.Context,
    /,
    *,
    timings: bool,
    as_json: bool,
    report: str,
    no_stdin: bool,
    **given: Any,
) -> None:
    """Run a command in a machine of its own, which is gone afterwards.

    The machine is made from a spec, or from an image with vmctl's defaults; with --pool neither is
    named, and all words are the command: vmctl run --pool NAME -- COMMAND. Status: the command's
    own; 124: the timeout ended it; 125: vmctl or the machine failed; 130: interrupted. With
    --matrix, keys in lower case are keys of the spec (mode, image, cpus), others are environment
    variables of the command; the status is the worst one.
    """
    from vmctl.runner import outputs
    from vmctl.runner import run as running
    from vmctl.ui import running as shown

    request = _request(context, given)
    if report:
        outputs.require(report, "report", replaced=True)
    one = not request.combinations[0].values
    screen = shown.Screen(
        one=one, quiet=context.quiet, aside=as_json, stdin=None if no_stdin else _stdin()
    )
    runs = running.Runs(request, screen.streams)
    screen.follow(runs.events())
    shown.show_remarks(runs.results)
    if timings:
        for result in runs.results:
            shown.show_times(result)
    if not one:
        shown.show_matrix(runs.results)
    _report(runs, as_json=as_json, file=report)
    _end(runs, told=as_json or not one, as_json=as_json)


def _request(context: contexts.Context, given: dict[str, Any]) -> Request:
    from vmctl.runner import matrix
    from vmctl.runner.run import Request

    options = {key: given[key] for key in ("mode", "nested", "cpus", "memory", "disk")}
    combinations = tuple(matrix.combinations(given["matrix"]))
    if given["pool"]:
        _refuse_keys(combinations[0])
        given = _in_pool(given, options)
    elif given["what"] is None:
        raise click.UsageError("Missing argument 'SPEC|IMAGE'.")
    if given["warm"] and (given["keep_on_failure"] or given["serial_log"]):
        raise click.UsageError("--keep-on-failure and --serial-log are for machines not --warm.")
    if given["jobs"] > 1 and not given["matrix"]:
        raise click.UsageError("--jobs is for --matrix: without one there is one run.")
    return Request(
        wanted=None if given["pool"] else _wanted(given, options),
        job=_job(given),
        combinations=combinations,
        jobs=given["jobs"],
        keep_on_failure=given["keep_on_failure"],
        serial_log=given["serial_log"],
        uri=context.uri,
        pool=given["pool"],
        warm=given["warm"],
    )


def _wanted(given: dict[str, Any], options: dict[str, Any]) -> Wanted:
    from vmctl.runner import wanted

    return wanted.Wanted(
        what=given["what"],
        sets=(*given["sets"], *wanted.sets(options)),
        allow_outside=given["allow_outside"],
        typed=wanted.typed(options, "--{}"),
    )


def _in_pool(given: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return what was given for a machine of a pool, which is made already: no SPEC|IMAGE."""
    keys = ["keep_on_failure", "serial_log", "sets", "warm"]
    for key in (*keys, *options):
        if given[key]:
            raise click.UsageError(
                f"--{'set' if key == 'sets' else key.replace('_', '-')} and --pool exclude each "
                "other."
            )
    words = (given["what"], *given["words"]) if given["what"] is not None else ()
    return {**given, "what": "", "words": words}


def _refuse_keys(combination: Combination) -> None:
    """Raise UsageError for a matrix over keys of the spec: a pool's machines are made already."""
    key = next(iter(combination.options), "")
    if key:
        raise click.UsageError(
            f"--matrix {key}=… and --pool exclude each other: '{key}' is a key of the spec; an "
            "environment variable is written in upper case."
        )


def _job(given: dict[str, Any]) -> Job:
    from vmctl.guest import shell
    from vmctl.runner import job

    if not given["words"]:
        raise errors.UsageError(
            "There is no command to run.", hint="Name it after --: vmctl run IMAGE -- uname -a"
        )
    lines = given["env_file"]
    env = {
        **dict(environment.of_lines(lines or (), lines.name if lines else "")),
        **dict(environment.of_words(given["variables"])),
    }
    shell.exports(env)
    made = job.Job(
        argv=given["words"],
        env=env,
        workdir=given["workdir"],
        user=given["user"],
        copies_in=tuple(job.parsed(given["copy_in"], "--copy-in")),
        copies_out=tuple(job.parsed(given["copy_out"], "--copy-out")),
        timeout=given["timeout"],
    )
    made.require_sources()
    return made


def _stdin() -> int | None:
    try:
        return None if sys.stdin is None else sys.stdin.fileno()
    except (OSError, ValueError):
        return None


def _report(runs: Runs, *, as_json: bool, file: str) -> None:
    from vmctl.runner import outputs
    from vmctl.ui import json_out

    found = [result.as_dict() for result in runs.results]
    data = {"status": runs.status, "runs": found}
    if file:
        try:
            outputs.write(file, json_out.text(data) + "\n")
        except OSError as problem:
            raise errors.HostError(
                f"The report '{file}' could not be written: {problem.strerror}."
            ) from None
    if as_json:
        json_out.emit(data)


def _end(runs: Runs, *, told: bool, as_json: bool) -> None:
    """End with the worst status; a single run says why it failed as every command does."""
    outcome = runs.results[0].outcome
    problem = outcome.problem if outcome is not None else None
    if problem is not None and len(runs.results) == 1:
        if not told:
            raise problem
        if not as_json and not problem.details:
            # The table of the matrix has said it.
            click.get_current_context().exit(runs.status)
        from vmctl.ui import complaint

        complaint.show(problem)
    click.get_current_context().exit(runs.status)
