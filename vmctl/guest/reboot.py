"""Restarts a guest from inside, over ssh, and knows when it has come back.

Linux gives each of its starts a number of its own (boot_id, see random(4)): a guest that shows
another one than before has been restarted, however long that took and whatever was seen of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.guest import script, ssh
from vmctl.guest.ssh import Access

_LOOK = "cat /proc/sys/kernel/random/boot_id"
_BOOT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LOOK_SECONDS = 15.0
_FIRST_LOOK_SECONDS = 5.0
_TELL_SECONDS = 30.0
_GREETING_SECONDS = 1.0
_POLL = 0.5

# In a guest whose login is in a root of its own (a container's files), init is outside of that.
_RESTART = b"""\
if [ /proc/1/root/ -ef / ]; then exec reboot; fi
exec chroot /proc/1/root /sbin/reboot
"""


def number(access: Access, deadline: Deadline) -> str:
    """Return the number of the guest's present start; empty while it does not answer.

    Through a connection of its own: a shared one may still be to the guest as it was.
    """
    if not ssh.answers(access.host, access.port, deadline.within(_GREETING_SECONDS)):
        return ""
    limit = deadline.within(_LOOK_SECONDS * access.patience)
    try:
        done = process.run(ssh.command(access, [_LOOK]), limit, check=False)
    except errors.WaitTimeoutError:
        return ""
    found = _BOOT_ID.search(done.text)
    return found[0] if found and done.status == 0 else ""


def tell(access: Access, cancelled: Callable[[], bool]) -> None:
    """Have the guest restart. Raises GuestError where it cannot, WaitTimeoutError."""
    said: list[bytes] = []
    deadline = Deadline.after(_TELL_SECONDS * access.patience)
    try:
        status = script.run(
            access, script.Script(content=_RESTART), deadline, said.append, cancelled
        )
    except script.LostError:
        # It was quick.
        return
    if status != 0:
        raise errors.GuestError(
            f"The guest of machine '{access.name}' does not restart: its 'reboot' ended with "
            f"status {status}.",
            hint=f"Look inside: vmctl ssh {access.name}",
            details=b"".join(said).decode("utf-8", "replace"),
        )


def wait(access: Access, before: str, deadline: Deadline, cancelled: Callable[[], bool]) -> None:
    """Return when the guest shows another number than `before`.

    Raises WaitTimeoutError, InterruptError.
    """
    seconds = _FIRST_LOOK_SECONDS
    while True:
        look = deadline.within(seconds)
        if number(access, look) not in ("", before):
            return
        if look.passed:
            # A login to a guest that is just going down hangs, and one to a slow guest takes long.
            seconds *= 2
        if cancelled():
            raise errors.InterruptError("Interrupted; the machine goes on running.")
        if deadline.passed:
            raise errors.WaitTimeoutError(
                f"Machine '{access.name}' did not come back from its restart within "
                f"{deadline.seconds:g} s.",
                hint=f"See what it does: vmctl logs {access.name}; then vmctl up goes on.",
            )
        deadline.pause(_POLL)
