"""Says what became of a domain that was adopted, and of a machine that was released."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmctl.ui import escape, terminal

if TYPE_CHECKING:
    from vmctl.lifecycle import adopt, release


def show_spec(text: str) -> None:
    """Show a spec, with what it cannot say in its comments."""
    terminal.put(escape.printable(text.rstrip("\n")))


def show_done(outcome: adopt.Outcome) -> None:
    """Say that a domain is vmctl's now, where its spec is, and what stays unmanaged."""
    name = outcome.name
    if outcome.already:
        terminal.put(f"{name} is under vmctl already; its spec: {escape.one_line(outcome.file)}")
        return
    if outcome.returned:
        terminal.put(f"{name} is back under vmctl, as it was when it was released.")
        return
    file = escape.one_line(outcome.file)
    lines = [f"{name} is under vmctl now. Its spec: {file}"]
    if outcome.findings:
        lines.append(f"Not managed, and left as they are ({len(outcome.findings)}):")
        lines += [f"  {escape.one_line(str(one))}" for one in outcome.findings]
    lines.append(f"See it: vmctl status {name}. Let go of it: vmctl release {name}")
    terminal.put("\n".join(lines))


def show_released(outcome: release.Outcome) -> None:
    """Say that a machine is an ordinary domain now, and which files it goes on using."""
    name = outcome.name
    goes_on = "It goes on running" if outcome.running else "It stays as it is"
    lines = [f"{name} is not vmctl's any more. {goes_on}; use virsh for it."]
    if outcome.uses:
        lines.append("It goes on using these files, which nobody but you removes:")
        lines += [f"  {escape.one_line(path)}" for path in outcome.uses]
    if outcome.networks:
        lines.append(f"and these networks: {', '.join(outcome.networks)}")
    lines.append(f"Get it back: vmctl adopt {name}")
    terminal.put("\n".join(lines))
