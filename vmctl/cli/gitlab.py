"""The stages of GitLab Runner's custom executor: gitlab config, prepare, run, cleanup."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from vmctl import errors
from vmctl.cli import context as contexts
from vmctl.cli.lifecycle import seconds

if TYPE_CHECKING:
    from vmctl.runner.ci.gitlab import Terms

_Function = Callable[..., Any]


class _Stage(click.Command):
    """A command that ends with the runner's own statuses: whose fault it was decides on a retry.

    Every failure of vmctl's is the system's, also one that nobody foresaw: the status 1 of other
    commands would blame the job.
    """

    def make_context(self, *words: Any, **more: Any) -> click.Context:
        try:
            return super().make_context(*words, **more)
        except click.UsageError as problem:
            raise _told(errors.UsageError(problem.format_message())) from problem

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            raise _told(errors.InterruptError("Interrupted.")) from None
        except errors.VmctlError as problem:
            raise _told(problem) from problem.__cause__
        except Exception as problem:
            from vmctl.ui import complaint

            raise _told(complaint.own_error(problem)) from problem


def _told(problem: errors.VmctlError) -> errors.VmctlError:
    """Give a failure the status that the runner expects."""
    from vmctl.runner.ci import gitlab as runner

    problem.exit_code = runner.Codes.of(os.environ).status(problem)
    return problem


@click.group()
def gitlab() -> None:
    """Be the custom executor of a GitLab Runner: a fresh machine for each job.

    For config.toml, not for people; docs/ci/gitlab.md has a file to copy.
    """


@gitlab.command(cls=_Stage)
@click.option("--builds-dir", default="/builds", show_default=True, help="Sources go here.")
@click.option("--cache-dir", default="/cache", show_default=True, help="Local caches go here.")
@click.option("--shell", type=click.Choice(["bash", "sh"]), help="What the runner writes for.")
@contexts.options
def config(
    context: contexts.Context,  # noqa: ARG001
    builds_dir: str,
    cache_dir: str,
    shell: str | None,
) -> None:
    """Print the executor's settings as JSON (config_exec)."""
    from vmctl.runner.ci import gitlab as runner
    from vmctl.ui import json_out

    json_out.emit(
        runner.config(os.environ, builds_dir=builds_dir, cache_dir=cache_dir, shell=shell or "")
    )


def _machines(command: _Function) -> _Function:
    """Give a command the options that say what jobs may ask for, and what they get."""
    for option in (
        click.option(
            "--allow-tcg", is_flag=True, help="Emulated guests are fine: jobs are trusted."
        ),
        click.option("--nested", is_flag=True, help="Give jobs VT-x or AMD-V of their own."),
        click.option("--disk", default="", metavar="SIZE", help="Size of the system disk."),
        click.option("--memory", default="", metavar="SIZE", help="Memory of a machine."),
        click.option("--cpus", default=0, type=click.IntRange(0), help="Processors of a machine."),
        click.option("--mode", default="", help="full, hardware, paravirt or auto."),
        click.option(
            "--specs",
            type=click.Path(exists=True, file_okay=False),
            help="A directory of specs: a job asks for NAME.yaml as image: NAME.",
        ),
        click.option(
            "--allow-image",
            "images",
            multiple=True,
            metavar="PATTERN",
            help="Images of vmctl's that jobs may name, as debian-*.",
        ),
        click.option(
            "--pool", "pools", multiple=True, metavar="NAME", help="Warm machines, as image: NAME."
        ),
        click.option(
            "--image", default="", help="For jobs that name none: an image, a spec or a pool."
        ),
    ):
        command = option(command)
    return command


@gitlab.command(cls=_Stage)
@_machines
@contexts.options
def prepare(context: contexts.Context, /, **given: Any) -> None:
    """Make the job's machine and wait until it is ready (prepare_exec)."""
    from vmctl.runner.ci import gitlab as runner
    from vmctl.runner.ci.offer import Offer, Sizes
    from vmctl.ui import progress

    sizes = {key: given[key] for key in ("mode", "cpus", "memory", "disk", "nested")}
    terms = runner.Terms(
        offer=Offer(
            default=given["image"],
            pools=given["pools"],
            images=given["images"],
            specs=given["specs"] or "",
        ),
        sizes=Sizes(**sizes),
        allow_tcg=given["allow_tcg"],
        uri=context.uri,
    )
    progress.follow(runner.prepare(os.environ, terms), quiet=context.quiet)


@gitlab.command(cls=_Stage)
@click.argument("script", type=click.Path(path_type=pathlib.Path))
@click.argument("stage")
@contexts.options
def run(context: contexts.Context, script: pathlib.Path, stage: str) -> None:  # noqa: ARG001
    """Run one of the runner's scripts in the job's machine (run_exec)."""
    from vmctl.guest.remote import Streams
    from vmctl.runner.ci import gitlab as runner
    from vmctl.ui.stream import Writer

    streams = Streams(stdin=None, stdout=Writer(sys.stdout), stderr=Writer(sys.stderr))
    status = runner.run(os.environ, script, _terms(context), streams)
    click.get_current_context().exit(status)


@gitlab.command(cls=_Stage)
@contexts.options
def cleanup(context: contexts.Context) -> None:
    """Remove the job's machine, if there is one (cleanup_exec)."""
    from vmctl.runner.ci import gitlab as runner
    from vmctl.ui import progress

    # The runner logs what comes on standard error as a warning.
    progress.follow(runner.cleanup(os.environ, _terms(context)), quiet=True)


@gitlab.command()
@click.option(
    "--older-than",
    metavar="DURATION",
    required=True,
    callback=seconds,
    help="Longer than a job may last: 6h, 90m.",
)
@contexts.options
def sweep(context: contexts.Context, older_than: float) -> None:
    """Remove machines of jobs that nobody cleaned up: for a timer.

    A runner that was killed, and a host that lost its power, call no cleanup.
    """
    from vmctl.runner.ci import gitlab as runner
    from vmctl.ui import progress

    progress.follow(runner.sweep(older_than, context.uri), quiet=context.quiet)


def _terms(context: contexts.Context) -> Terms:
    from vmctl.runner.ci.gitlab import Terms
    from vmctl.runner.ci.offer import Offer

    return Terms(offer=Offer(), uri=context.uri)
