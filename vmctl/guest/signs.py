"""By what it is seen that a guest is ready: its console, ssh, cloud-init, its agent."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable
from typing import Protocol

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.guest import ssh
from vmctl.guest.ssh import Access

_LOOK_FOR_ADDRESS = 0.25
_CONNECT_EVERY = 0.1
_GREETING = b"SSH-"
_TRIED_SECONDS = 2.0
_HELD_SECONDS = 10.0
"""How long a connection is held: while it is not known whether there is a network, and later."""

_LOGIN_AGAIN = 0.5
_LOGIN_SECONDS = 30.0
_AGENT_EVERY = 0.25
_AGENT_SECONDS = 2.0
_SILENT_SECONDS = 20.0
"""How long after ssh answers the console may say nothing of the end, until ssh is asked."""

_SHUT_SECONDS = 15.0
_REFUSALS = 3
"""So long without an answer of ssh, or so many refusals, after the end: there is no way in."""

_RESULT = "/run/cloud-init/result.json"
_LOG_LINES = 15
_FINISHED = re.compile(r"Cloud-init v\. ?\S+ finished at ")
_FAILED = re.compile(r"Failed to run module|Running module \S+ .* failed|\[(ERROR|CRITICAL)\]")


class Sign(Protocol):
    """Something that is waited for; `awaited` names it, `last` is what was seen of it so far."""

    awaited: str
    last: str

    def line(self, text: str) -> None:
        """Take a line of the console; an unfinished one comes again."""

    def seen(self, deadline: Deadline) -> bool:
        """Look, without waiting long; raises what makes waiting useless."""

    def close(self) -> None:
        """Let go of what looking needed."""


class Console:
    """A line of the serial console."""

    def __init__(self, pattern: str) -> None:
        self.awaited = f"{pattern!r} on its console"
        self.last = ""
        self._pattern = re.compile(pattern)
        self._matched = False

    def line(self, text: str) -> None:
        """Look for the pattern."""
        self._matched = self._matched or self._pattern.search(text) is not None

    def seen(self, deadline: Deadline) -> bool:  # noqa: ARG002
        """Tell whether a line matched."""
        return self._matched

    def close(self) -> None:
        """Nothing was needed."""


class Agent:
    """An answer of QEMU's guest agent; `ping` asks it."""

    awaited = "an answer of its guest agent"

    def __init__(self, ping: Callable[[Deadline], bool]) -> None:
        self.last = ""
        self._ping = ping
        self._next = 0.0

    def line(self, text: str) -> None:
        """Take no notice."""

    def seen(self, deadline: Deadline) -> bool:
        """Ask, now and then."""
        if time.monotonic() < self._next:
            return False
        answered = self._ping(deadline.within(_AGENT_SECONDS))
        self._next = time.monotonic() + _AGENT_EVERY
        return answered

    def close(self) -> None:
        """Nothing was needed."""


class Greeting:
    """Whether an ssh server greets; never waits, and bothers the guest as little as can be.

    One connection at a time. QEMU's user network takes each at once, and goes on trying to reach
    the guest for 75 s after it was given up here: all that were ever begun would be sshd's first
    guests. So new ones are rare until one is refused, which shows that the guest has a network.
    """

    def __init__(self) -> None:
        self._peer: socket.socket | None = None
        self._begun = 0.0
        self._next = 0.0
        self._networked = False

    def heard(self, host: str, port: int) -> bool:
        """Look at the connection, or begin one if it is time."""
        now = time.monotonic()
        if self._peer is None:
            if now >= self._next:
                self._begin(host, port, now)
            return False
        try:
            greeted = self._peer.recv(len(_GREETING)) == _GREETING
        except BlockingIOError:
            if now - self._begun > (_HELD_SECONDS if self._networked else _TRIED_SECONDS):
                self.close()
            return False
        except OSError:
            greeted = False
        self.close()
        # Closed by the guest, or on its behalf: it has a network, and no server yet.
        self._networked, self._next = True, now + _CONNECT_EVERY
        return greeted

    def _begin(self, host: str, port: int, now: float) -> None:
        self._peer = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._peer.setblocking(False)
        self._peer.connect_ex((host, port))
        self._begun = now

    def close(self) -> None:
        """Drop the connection."""
        if self._peer is not None:
            self._peer.close()
            self._peer = None


class Ssh:
    """A login over ssh; `find` returns how the guest is reached, None while it has no address."""

    awaited = "a login over ssh"

    def __init__(self, find: Callable[[], Access | None]) -> None:
        self.last = ""
        self.refused: errors.VmctlError | None = None
        self.refusals = 0
        self.access: Access | None = None
        self.greeted = False
        self._find = find
        self._greeting = Greeting()
        self._next = 0.0

    def line(self, text: str) -> None:
        """Take no notice."""

    def seen(self, deadline: Deadline) -> bool:
        """Tell whether a login worked: first an address, then a greeting, then a real login."""
        if not self.answers():
            return False
        if time.monotonic() < self._next:
            return False
        assert self.access is not None
        try:
            ssh.connect(self.access, deadline.within(_LOGIN_SECONDS * self.access.patience))
            process.run(
                ssh.command(self.access, ["true"], shared=True),
                deadline.within(_LOGIN_SECONDS * self.access.patience),
            )
        except errors.VmctlError as problem:
            # A key may be on its way into the guest, and its host key too.
            self.refused, self.last = problem, problem.message
            self.refusals += 1
            self._next = time.monotonic() + _LOGIN_AGAIN
            return False
        return True

    def answers(self) -> bool:
        """Tell whether the guest's ssh server has greeted; never waits."""
        if self.greeted:
            return True
        if self.access is None:
            if time.monotonic() < self._next:
                return False
            self._next = time.monotonic() + _LOOK_FOR_ADDRESS
            self.access = self._find()
            if self.access is None:
                self.last = "it has no address yet"
                return False
        host, port = self.access.host, self.access.port
        if self._greeting.heard(host, port):
            self._greeting.close()
            self.greeted, self._next = True, 0.0
            return True
        self.last = f"no ssh server answers at {host} port {port} yet"
        return False

    def close(self) -> None:
        """Drop the connection that waits for a greeting."""
        self._greeting.close()


class CloudInit:
    """The end of cloud-init: what it says on the console, and then its own account over ssh."""

    awaited = "the end of cloud-init"

    def __init__(self, way: Ssh | None) -> None:
        self.last = ""
        self._way = way
        self._finished = 0.0
        self._failures: list[str] = []
        self._answered = 0.0
        self._next = 0.0

    def line(self, text: str) -> None:
        """Look for cloud-init's last words, and for what it says of failures."""
        if not self._finished and _FINISHED.search(text):
            self._finished = time.monotonic()
        if _FAILED.search(text) and text not in self._failures:
            self._failures.append(text.strip())

    def seen(self, deadline: Deadline) -> bool:
        """Tell whether it has finished. Raises GuestError where it has not gone well."""
        if self._way is None:
            return bool(self._finished) and self._went_well()
        answers = self._way.answers()
        if answers and not self._answered:
            self._answered = time.monotonic()
        patience = self._way.access.patience if self._way.access is not None else 1
        overdue = answers and time.monotonic() > self._answered + _SILENT_SECONDS * patience
        if not self._finished and not overdue:
            self.last = "" if answers else self._way.last
            return False
        if time.monotonic() < self._next:
            return False
        if not self._way.seen(deadline):
            self.last = self._way.last
            return self._shut and self._went_well()
        done = self._account(deadline)
        self._next = time.monotonic() + (_LOGIN_AGAIN if self._finished else _SILENT_SECONDS)
        return done

    def close(self) -> None:
        """Let go of the way in."""
        if self._way is not None:
            self._way.close()

    @property
    def _shut(self) -> bool:
        """True where the user-data may have left no way in; the console is all there is then."""
        if not self._finished or self._way is None:
            return False
        silent = not self._way.greeted and time.monotonic() > self._finished + _SHUT_SECONDS
        return silent or self._way.refusals >= _REFUSALS

    def _went_well(self) -> bool:
        if self._failures:
            raise _failure("\n".join(self._failures[-_LOG_LINES:]), "")
        return True

    def _account(self, deadline: Deadline) -> bool:
        """Read what cloud-init wrote about itself; False while it has not."""
        written = self._ask(f"cat {_RESULT} 2> /dev/null || true", deadline)
        try:
            problems = json.loads(written)["v1"]["errors"]
        except (ValueError, KeyError, TypeError):
            return False
        if problems:
            log = self._ask(_LOG_COMMAND, deadline)
            raise _failure("\n".join(str(problem) for problem in problems), log)
        return True

    def _ask(self, command: str, deadline: Deadline) -> str:
        assert self._way is not None
        assert self._way.access is not None
        limit = deadline.within(_LOGIN_SECONDS * self._way.access.patience)
        with contextlib.suppress(errors.ProgramError):
            return process.run(ssh.command(self._way.access, [command], shared=True), limit).text
        return ""


_LOG_COMMAND = (
    "log=/var/log/cloud-init.log; "
    f"{{ cat $log || sudo -n cat $log; }} 2> /dev/null | grep -E 'WARNING|ERROR|CRITICAL' "
    f"| tail -n {_LOG_LINES}"
)


def _failure(problems: str, log: str) -> errors.GuestError:
    return errors.GuestError(
        f"cloud-init in the guest failed: {problems}",
        hint="Read its whole output in the guest: sudo cat /var/log/cloud-init-output.log",
        details=log,
    )
