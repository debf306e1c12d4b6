"""What `up` would change: diff."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from vmctl.cli import context as contexts

if TYPE_CHECKING:
    from vmctl.machine.comparison import Comparison

_Row = tuple[str, ...]


@click.command()
@click.argument("spec", required=False, metavar="[SPEC]")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a key of the spec.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--exit-code", is_flag=True, help="End with status 1 where something differs.")
@click.option("--allow-outside", is_flag=True, help="Allow files outside the spec's directory.")
@contexts.options
def diff(
    context: contexts.Context,
    *,
    spec: str | None,
    sets: tuple[str, ...],
    as_json: bool,
    exit_code: bool,
    allow_outside: bool,
) -> None:
    """Show how machines differ from their spec; changes nothing.

    WHEN says what 'vmctl up' makes of a change: live (done in the running machine), at next start,
    or needs re-creation. What other hands changed is drift, which up leaves alone without
    --take-over. Without SPEC, ./vmctl.yaml.
    """
    from vmctl.lifecycle import targets, up
    from vmctl.ui import json_out, table

    request = up.Request(
        path=targets.spec_path(spec), uri=context.uri, sets=sets, allow_outside=allow_outside
    )
    machines, orphans = up.differences(request)
    differs = bool(orphans) or any(each.differs for each in machines)
    if as_json:
        json_out.emit(
            {
                "different": differs,
                "machines": [each.as_dict() for each in machines],
                "orphans": list(orphans),
            }
        )
    else:
        columns = ("machine", "what", "is", "spec", "when")
        table.show(columns, _rows(machines, orphans), empty="Nothing differs.")
    if differs and exit_code:
        click.get_current_context().exit(1)


def _rows(machines: Sequence[Comparison], orphans: Sequence[str]) -> Iterator[_Row]:
    for each in machines:
        name = each.machine.name
        if each.verdict == "to create":
            yield name, "machine", "", each.machine.mode, each.verdict
        if each.refusal:
            yield name, each.refusal, "", "", each.verdict
        for change in each.changes:
            yield name, change.path, change.before, change.after, change.effect
        for drift in each.drift:
            yield name, drift, "", "", "drift"
    for name in orphans:
        yield name, "machine", "there", "", "not in the spec any more"
