"""What happens at power-off, reboot and crash."""

from __future__ import annotations

from vmctl.machine.xml.element import Writer


def write(out: Writer) -> None:
    """Write the actions and switch off sleep states, from which such guests do not wake well."""
    out.add(out.root, "on_poweroff", text="destroy")
    out.add(out.root, "on_reboot", text="restart")
    out.add(
        out.root,
        "on_crash",
        text="preserve",
        why="always: a guest that panicked stays for inspection and is shown as that",
    )
    sleep = out.add(out.root, "pm", why="always: no suspend states inside the guest")
    out.add(sleep, "suspend-to-mem", enabled="no")
    out.add(sleep, "suspend-to-disk", enabled="no")
