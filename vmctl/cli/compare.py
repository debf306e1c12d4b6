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

_NESTED_RUN = 30.0
_NESTED_START = 60.0
"""The same in the lab host, and what its own start takes."""

_FACTS_SECONDS = 20.0


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
@click.option("--nested", is_flag=True, help="In a lab host: an emulated machine that has KVM.")
@click.option("--keep", is_flag=True, help="With --nested: leave the lab host running.")
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
    nested: bool,
    keep: bool,
    yes: bool,
) -> None:
    """Measure full emulation, hardware assistance, virtio, a container and the host.

    The same job runs in each, in rounds whose order is drawn anew; machines boot anew for each
    round and are gone afterwards. Without SPEC: one small machine. Takes about two minutes with
    --quick. `--from A.json B.json` shows what was measured on two hosts side by side.

    Where the host has no usable KVM, --nested measures inside a machine with an emulated AMD-V.
    """
    if sources:
        _show_files([*sources, *spec], html_file)
        return
    if keep and not nested:
        raise errors.UsageError("--keep leaves the lab host of --nested running.")
    writers = _Writers(json_file, html_file)
    request = _request(spec, context, modes, workloads, rounds, baseline, seed, quick=quick, aa=aa)
    inside = nested or _wants_nested(request, yes=yes)
    _ask(request, yes=yes or (inside and not nested), nested=inside)
    if inside:
        words = [*_words_inside(request, workloads), *(["--quick"] if quick else [])]
        _carry_out_nested(words, spec, context, writers, keep=keep)
    else:
        _carry_out(request, context, writers)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _request(  # noqa: PLR0913
    spec: tuple[str, ...],
    context: contexts.Context,
    modes: str,
    workloads: str,
    rounds: int | None,
    baseline: str,
    seed: int | None,
    *,
    quick: bool,
    aa: bool,
) -> Request:
    from vmctl import shipped
    from vmctl.lab import catalog, field
    from vmctl.lab.compare import Request

    if len(spec) > 1:
        raise errors.UsageError("One spec is compared at a time.", hint="See: vmctl compare --help")
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
        workloads=tuple(catalog.named(_words(workloads), quick=quick)),
        rounds=rounds or (_QUICK_ROUNDS if quick else _ROUNDS),
        slice_seconds=_QUICK_SLICE if quick else _SLICE,
        slices=_QUICK_SLICES if quick else _SLICES,
        seed=secrets.randbelow(1 << 31) if seed is None else seed,
        uri=context.uri,
        baseline=baseline,
        against_itself=aa,
    )


def _seconds(request: Request, *, nested: bool) -> float:
    """Return about how long a comparison takes."""
    from vmctl.lab import catalog

    work = request.slice_seconds * (request.slices + 1) * len(catalog.probed(request.workloads))
    if nested:
        return _NESTED_START + request.runs * (2 * work + _NESTED_RUN)
    work += _TOOL_SECONDS * sum(not workload.quick for workload in request.workloads)
    return request.runs * (work + _RUN_SECONDS)


def _wants_nested(request: Request, *, yes: bool) -> bool:
    """Offer the lab host to a person whose host has no usable KVM and who named no modes."""
    import sys

    from vmctl.ui import ask, terminal

    if yes or request.named or not terminal.is_tty(sys.stdin):
        return False
    from vmctl.deadline import Deadline
    from vmctl.host import gather, verdict

    facts = gather.gather(Deadline.after(_FACTS_SECONDS))
    if not facts.x86_64 or verdict.kvm_verdict(facts).usable:
        return False
    minutes = _seconds(request, nested=True) / 60
    return ask.confirm(
        "This host has no usable KVM, so 'hardware' and 'paravirt' cannot run here. Compare them "
        f"in a lab host, a machine with an emulated AMD-V? (about {minutes:.0f} minutes on an idle "
        "host; no: the other modes, here)",
        yes=False,
    )


def _ask(request: Request, *, yes: bool, nested: bool = False) -> None:
    """Ask a person before many minutes; where nobody can be asked, it was meant."""
    import sys

    from vmctl.ui import ask, terminal

    seconds = _seconds(request, nested=nested)
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


def _words_inside(request: Request, workloads: str) -> list[str]:
    """Return the options for vmctl in the lab host."""
    words = ["--rounds", str(request.rounds), "--seed", str(request.seed)]
    words += ["--aa"] if request.against_itself else []
    for option, value in (
        ("--modes", ",".join(request.modes) if request.named else ""),
        ("--workloads", workloads),
        ("--baseline", request.baseline),
    ):
        words += [option, value] if value else []
    return words


def _carry_out_nested(
    words: Sequence[str],
    spec: tuple[str, ...],
    context: contexts.Context,
    writers: _Writers,
    *,
    keep: bool,
) -> None:
    from vmctl.lab import nested
    from vmctl.ui import progress

    path = pathlib.Path(spec[0]) if spec else None
    if path is not None and not path.is_file():
        raise errors.NotFoundError(f"There is no spec '{path}'.")
    request = nested.Request(words=tuple(words), spec=path, uri=context.uri, keep=keep)
    comparison = nested.Nested(request, writers.save)
    try:
        progress.follow(comparison.events(), quiet=context.quiet)
    except (KeyboardInterrupt, errors.InterruptError):
        found = comparison.results
        if found is not None:
            _kept(found, writers.finish)
        raise errors.InterruptError(
            "Interrupted; what was measured until then is kept and marked as partial."
            if found is not None and found.runs
            else "Interrupted before anything was measured."
        ) from None
    except errors.VmctlError:
        if comparison.results is not None:
            _kept(comparison.results, writers.finish)
        raise
    if comparison.results is not None:
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
