"""`vmctl doctor`: what this host can do, and why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vmctl.cli import context as contexts

if TYPE_CHECKING:
    from vmctl.doctor.model import Finding, LibvirtFacts
    from vmctl.host.facts import HostFacts
    from vmctl.host.verdict import Verdict
    from vmctl.machine.model import Mode

_SECONDS = 20.0
"""All of it together; most hosts take less than one second."""
_HOST_LACKS = 5


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print findings and facts as JSON.")
@click.option(
    "--mode",
    type=click.Choice(["auto", "full", "hardware", "paravirt", "tcg-virtio"]),
    default="auto",
    show_default=True,
    help="Exit with status 5 when this mode cannot run here.",
)
@click.option("--no-probe", is_flag=True, help="Do not run code on KVM.")
@click.option("--fresh", is_flag=True, help="Probe KVM even if the last result is remembered.")
@contexts.options
def doctor(
    context: contexts.Context, as_json: bool, mode: str, no_probe: bool, fresh: bool
) -> None:
    """Find out which modes this host can run, and why.

    For everything that is missing it says what the cause is and what to type.
    """
    from vmctl.deadline import TCG_PATIENCE, Deadline
    from vmctl.doctor import asking, checks, modes
    from vmctl.host import gather, nesting
    from vmctl.machine.model import Mode
    from vmctl.store.layout import Layout

    deadline = Deadline.after(_SECONDS)
    layout = Layout.default()
    inquiry = asking.Inquiry(context.uri, layout, Deadline.after(_SECONDS * TCG_PATIENCE))
    facts = gather.gather(deadline, probing=not no_probe, fresh=fresh)
    libvirt = inquiry.answer(emulated=facts.emulated)
    wanted = None if mode == "auto" else Mode(mode)
    verdict = modes.mode_verdict(facts, wanted, libvirt)
    findings = checks.examine(facts, libvirt, layout.home)
    if as_json:
        _emit(facts, libvirt, wanted, verdict, findings)
    else:
        from vmctl.ui import findings as showing

        bad = [finding for finding in findings if finding.bad]
        shown = bad if context.quiet else findings
        best = modes.best_mode(facts, libvirt)
        result = _result(f"auto ({best})" if best and not wanted else mode, verdict)
        showing.show(shown, closing=(nesting.platform(facts).sentence, result))
    if not verdict.usable:
        click.get_current_context().exit(_HOST_LACKS)


def _result(mode: str, verdict: Verdict) -> str:
    if verdict.usable:
        return f"Mode {mode} can run here."
    return f"Mode {mode} cannot run here: {verdict.cause}"


def _emit(
    facts: HostFacts,
    libvirt: LibvirtFacts,
    wanted: Mode | None,
    verdict: Verdict,
    findings: list[Finding],
) -> None:
    from vmctl.doctor import modes
    from vmctl.host import nesting
    from vmctl.machine.model import Mode
    from vmctl.ui import json_out

    json_out.emit(
        {
            "mode": wanted or "auto",
            "verdict": verdict,
            "auto": modes.best_mode(facts, libvirt),
            "modes": {str(mode): modes.mode_verdict(facts, mode, libvirt) for mode in Mode},
            "platform": nesting.platform(facts),
            "findings": findings,
            "libvirt": libvirt,
            "host": facts.as_dict(),
        }
    )
