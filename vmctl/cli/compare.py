"""`vmctl compare`: measure the modes against each other."""

from __future__ import annotations

import pathlib
import secrets
from typing import TYPE_CHECKING

import click

from vmctl import errors
from vmctl.cli import context as contexts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vmctl.lab.compare import Request
    from vmctl.lab.results import Results

_ROUNDS, _SLICE, _SLICES = 10, 0.1, 3
_QUICK_ROUNDS, _QUICK_SLICE, _QUICK_SLICES = 6, 0.03, 2
_LONG = 300.0
"""Seconds from which on a person is asked first."""

_TOOL_SECONDS = 4.0
_RUN_SECONDS = 9.0
"""What starting a machine takes on a small host under TCG, for the estimate."""


@click.command()
@click.argument("spec", nargs=-1, metavar="[SPEC]")
@click.option("--modes", metavar="MODE,…", default="", help="Which; default: all that can run.")
@click.option("--workloads", metavar="NAME,…", default="", help="Which, or groups; default: all.")
@click.option("--rounds", metavar="N", type=click.IntRange(1, 1000), help="Default: 10; quick: 6.")
@click.option("--quick", is_flag=True, help="About two minutes: fewer rounds, shorter slices.")
@click.option("--baseline", metavar="MODE", default="", help="What ratios are to; default: host.")
@click.option("--aa", is_flag=True, help="Compare each mode with itself: there must be no winner.")
@click.option("--seed", type=int, metavar="N", help="Order of the rounds, and of resampling.")
@click.option("--json", "json_file", metavar="FILE", help="Write everything, raw samples too.")
@click.option("--html", "html_file", metavar="FILE", help="Write a page that explains it.")
@click.option("--from", "sources", multiple=True, metavar="FILE", help="Show results: one or two.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before a long comparison.")
@contexts.options
def compare(  # noqa: PLR0913
    context: contexts.Context,
    *,
    spec: tuple[str, ...],
    modes: str,
    workloads: str,
    rounds: int | None,
    quick: bool,
    baseline: str,
    aa: bool,
    seed: int | None,
    json_file: str | None,
    html_file: str | None,
    sources: tuple[str, ...],
    yes: bool,
) -> None:
    """Measure full emulation, hardware assistance, virtio, a container and the host.

    The same job runs in each, in rounds whose order is drawn anew; machines boot anew for each
    round and are gone afterwards. Without SPEC: one small machine. Takes about two minutes with
    --quick. `--from A.json B.json` shows what was measured on two hosts side by side.
    """
    from vmctl.lab import catalog

    if sources:
        _show_files([*sources, *spec], html_file)
        return
    if len(spec) > 1:
        raise errors.UsageError("One spec is compared at a time.", hint="See: vmctl compare --help")
    chosen = catalog.named(_words(workloads), quick=quick)
    writers = _Writers(json_file, html_file)
    request = _request(
        spec, context, modes=modes, workloads=chosen, rounds=rounds, quick=quick, baseline=baseline
    )
    import dataclasses

    request = dataclasses.replace(
        request, against_itself=aa, seed=secrets.randbelow(1 << 31) if seed is None else seed
    )
    _ask(request, yes=yes)
    _carry_out(request, context, writers)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _request(
    spec: tuple[str, ...],
    context: contexts.Context,
    *,
    modes: str,
    workloads: Sequence[object],
    rounds: int | None,
    quick: bool,
    baseline: str,
) -> Request:
    from vmctl import shipped
    from vmctl.lab import field
    from vmctl.lab.compare import Request

    named = _words(modes)
    for word in [*named, *([baseline] if baseline else [])]:
        if word not in field.MODES:
            raise errors.UsageError(
                f"There is no mode '{word}' to compare.",
                hint=f"There are: {', '.join(field.MODES)}",
            )
    return Request(
        path=pathlib.Path(spec[0]) if spec else shipped.directory("templates") / "lab.yaml",
        modes=tuple(dict.fromkeys(named or field.MODES)),
        named=bool(named),
        workloads=tuple(workloads),  # type: ignore[arg-type]
        rounds=rounds or (_QUICK_ROUNDS if quick else _ROUNDS),
        slice_seconds=_QUICK_SLICE if quick else _SLICE,
        slices=_QUICK_SLICES if quick else _SLICES,
        seed=0,
        uri=context.uri,
        baseline=baseline,
    )


def _ask(request: Request, *, yes: bool) -> None:
    """Ask a person before many minutes; where nobody can be asked, it was meant."""
    import sys

    from vmctl.lab import catalog
    from vmctl.ui import ask, terminal

    work = request.slice_seconds * (request.slices + 1) * len(catalog.probed(request.workloads))
    work += _TOOL_SECONDS * sum(not workload.quick for workload in request.workloads)
    seconds = request.runs * (work + _RUN_SECONDS)
    if yes or seconds < _LONG or not terminal.is_tty(sys.stdin):
        return
    question = f"{request.runs} runs take about {seconds / 60:.0f} minutes. Go on?"
    if not ask.confirm(question, yes=False):
        click.echo("Nothing was run.", err=True)
        click.get_current_context().exit(1)


class _Writers:
    """The files that were asked for; their directories must be there before the work begins."""

    def __init__(self, json_file: str | None, html_file: str | None) -> None:
        self.json_file = json_file
        self.html_file = html_file
        for name in (json_file, html_file):
            if name and name != "-" and not pathlib.Path(name).absolute().parent.is_dir():
                raise errors.UsageError(f"The directory of '{name}' is not there.")

    def save(self, results: Results) -> None:
        """Write the JSON file, as after each run: not even a kill loses what was measured."""
        if self.json_file and self.json_file != "-":
            _write(self.json_file, results.text())

    def finish(self, results: Results) -> None:
        """Write all files, and the table where standard output is not for JSON."""
        from vmctl.lab import summary
        from vmctl.ui import comparison, terminal

        self.save(results)
        found = summary.summarise(results)
        if self.html_file:
            from vmctl.lab.page import page

            _write(self.html_file, page.text([found]))
        if self.json_file == "-":
            terminal.put(results.text().rstrip("\n"))
        elif results.runs:
            comparison.show(found)


def _write(name: str, text: str) -> None:
    from vmctl.store import files

    files.write(pathlib.Path(name).absolute(), text.encode(), files.SHARED)


def _carry_out(request: Request, context: contexts.Context, writers: _Writers) -> None:
    from vmctl.lab.compare import Comparison
    from vmctl.ui import progress

    comparison = Comparison(request, writers.save)
    try:
        progress.follow(comparison.events(), quiet=context.quiet)
    except (KeyboardInterrupt, errors.InterruptError):
        _kept(comparison.results, writers.finish)
        raise errors.InterruptError(
            "Interrupted; what was measured until then is kept and marked as partial."
            if comparison.results.runs
            else "Interrupted before anything was measured."
        ) from None
    except errors.VmctlError:
        _kept(comparison.results, writers.finish)
        raise
    writers.finish(comparison.results)


def _kept(results: Results, finish: Callable[[Results], None]) -> None:
    if results.runs:
        finish(results)


def _show_files(names: Sequence[str], html_file: str | None) -> None:
    """Show one or two files of results."""
    from vmctl.lab import results, summary
    from vmctl.ui import comparison

    if len(names) > 2:
        raise errors.UsageError(f"Two files are set side by side; there are {len(names)}.")
    found = [summary.summarise(results.load(name)) for name in names]
    if html_file:
        from vmctl.lab.page import page

        _write(html_file, page.text(found))
    if len(found) == 1:
        comparison.show(found[0])
    else:
        comparison.show_hosts(*found)
