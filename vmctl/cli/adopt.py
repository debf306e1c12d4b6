"""`vmctl adopt` and `vmctl release`: domains that others made, and machines that become theirs."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

import click

from vmctl.cli import completion
from vmctl.cli import context as contexts

if TYPE_CHECKING:
    from vmctl.lifecycle.adopt import Outcome


@click.command()
@click.argument("name")
@click.option("--spec", "file", metavar="FILE", help="Where its spec goes; default: ./NAME.yaml.")
@click.option("--partial", is_flag=True, help="Adopt it although a spec cannot say all of it.")
@click.option("--dry-run", is_flag=True, help="Show its spec and what that cannot say; no more.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@contexts.options
def adopt(
    context: contexts.Context,
    name: str,
    *,
    file: str | None,
    partial: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take a domain that virsh or virt-install made under vmctl, and write its spec.

    Nothing of the domain changes but vmctl's mark in its metadata. Its disks stay where they are
    and are never removed. What a spec cannot say is named, and the domain then left alone (status
    7), unless --partial is given: then it stays in the domain as it is.
    """
    from vmctl import errors
    from vmctl.lifecycle import adopt as adopting
    from vmctl.ui import adoption, json_out

    request = adopting.Request(
        name=name,
        file=pathlib.Path(file or f"{name}.yaml"),
        uri=context.uri,
        partial=partial,
        dry_run=dry_run,
    )
    outcome = adopting.adopt(request)
    refused = bool(outcome.findings) and not partial and not outcome.done
    if as_json:
        json_out.emit(_data(outcome))
        if refused:
            click.get_current_context().exit(errors.RefusedError.exit_code)
    elif dry_run:
        adoption.show_spec(outcome.spec)
    elif outcome.done and not context.quiet:
        adoption.show_done(outcome)
    if refused:
        raise errors.RefusedError(
            f"Domain '{name}' has {len(outcome.findings)} things that no spec can say; it was "
            "left alone.",
            hint=f"Adopt it all the same, and let them stay as they are: vmctl adopt --partial "
            f"{name}",
            details="" if dry_run else "\n".join(map(str, outcome.findings)),
        )


def _data(outcome: Outcome) -> dict[str, object]:
    from vmctl.lifecycle import adopt as adopting

    return {
        "name": outcome.name,
        "adopted": outcome.done,
        "returned": outcome.returned,
        "already": outcome.already,
        "file": outcome.file,
        "spec": outcome.spec,
        "not_managed": adopting.plain(outcome.findings),
    }


@click.command()
@click.argument("name", shell_complete=completion.machine_names)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@contexts.options
def release(context: contexts.Context, name: str, *, as_json: bool) -> None:
    """Let go of a machine without touching it: it goes on as an ordinary domain of libvirt's.

    Its files stay where they are, and gc spares them for as long as a domain uses them. 'adopt'
    gets the machine back.
    """
    from vmctl.lifecycle import release as releasing
    from vmctl.ui import adoption, json_out

    outcome = releasing.release(name, context.uri)
    if as_json:
        json_out.emit(outcome)
    elif not context.quiet:
        adoption.show_released(outcome)
