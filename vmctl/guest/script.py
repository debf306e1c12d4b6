"""Runs a script in a guest over ssh: its output is watched line by line, and it ends when we do.

All of it (the script, its environment) goes through standard input; the command line, which every
user of the host can read, is always the same. Standard input stays open while the script runs: when
it ends, because vmctl was killed or the network broke, the guest ends the script.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import re
import secrets
import selectors
import shlex
import threading
from collections.abc import Callable, Mapping

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.guest import ssh
from vmctl.guest.ssh import Access

ROOT = "root"
_SSH_FAILED = 255
_FAREWELL_SECONDS = 2.0
_POLL = 0.1
_CHUNK = 1 << 16
_LONGEST_LINE = 4096
"""Bytes of a line without an end, as of a progress bar, that are held back."""

_SHEBANG = re.compile(rb"#![ \t]*([^ \t\r\n]+)(?:[ \t]+([^\r\n]*?))?[ \t]*\r?(?:\n|$)")


class LostError(errors.GuestError):
    """The guest broke the connection while the script ran."""


Heard = Callable[[bytes], None]
"""Is given the output as it comes, standard output and standard error in one."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What is run: `content` as a file would hold it, by `user`, with `env` added.

    Without a `#!` line it is one for `/bin/sh -e`. `place` is the directory of the guest that it
    lies in while it runs; empty for that of temporary files, which may be on a disk.
    """

    content: bytes
    user: str = ROOT
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    place: str = ""


def run(
    access: Access,
    script: Script,
    deadline: Deadline,
    heard: Heard,
    cancelled: Callable[[], bool] = lambda: False,
) -> int:
    """Run a script to its end and return its exit status (128 and the signal for a killed one).

    Raises WaitTimeoutError at the deadline, InterruptError when cancelled (the guest ends the
    script in both cases), LostError, and what `guest.ssh` raises for a guest that it cannot reach.
    """
    ssh.connect(access, deadline)
    mark = f"vmctl-{secrets.token_hex(8)}"
    argv = ssh.command(access, [_become(access.user, script.user)], shared=True)
    with process.beside(argv) as child:
        talk = _Talk(access, child, mark, heard)
        status = talk.until_over(_program(script, mark), deadline, cancelled)
        # Dropbear closes a session that begins while another one is being cut off. Where a daemon
        # of the script's still holds the output, there is no better end.
        process.ended(child, _FAREWELL_SECONDS)
        return status


def _become(login: str, user: str) -> str:
    """Return the command, for the login user's shell, that reads a program as `user`."""
    shell = "exec /bin/sh -s"
    if user == login:
        return shell
    if login == ROOT:
        return f"exec su -s /bin/sh -c '{shell}' {shlex.quote(user)}"
    return f"exec sudo -n -H -u {shlex.quote(user)} /bin/sh -s"


def interpreter(content: bytes) -> list[str]:
    """Return the words that run a script, as the kernel would read its first line.

    They are called by name, so that it does not matter whether /tmp is mounted noexec. Empty for a
    program that is no script.
    """
    if content.startswith(b"\x7fELF"):
        return []
    found = _SHEBANG.match(content)
    if found is None:
        return ["/bin/sh", "-e"]
    words = [found[1], *([found[2]] if found[2] else [])]
    return [os.fsdecode(word) for word in words]


def _program(script: Script, mark: str) -> bytes:
    """Return the shell program that unpacks the script, runs it and tells its status."""
    words = shlex.join(interpreter(script.content))
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in script.env.items())
    packed = base64.encodebytes(script.content).decode()
    # For bash, too: it keeps a long text that it is given in a temporary file.
    chosen = f"TMPDIR={shlex.quote(script.place)}\n" if script.place else ""
    # A function: the shell has read all of it before something else reads the same input.
    text = f"""run() {{
    umask 022
    PATH=${{PATH:-/usr/local/bin:/usr/bin:/bin}}:/usr/local/sbin:/usr/sbin:/sbin
    export PATH
{exports}
    cd "${{HOME:-/}}" 2> /dev/null || cd /
    exec 3<&0
    setsid {words} "$file" < /dev/null 2>&1 3<&- &
    step=$!
    {{ cat <&3; kill -TERM "-$step"; sleep 2; kill -KILL "-$step"; }} > /dev/null 2>&1 &
    watch=$!
    exec 3<&-
    wait "$step"
    status=$?
    kill "$watch" 2> /dev/null
    rm -f "$file"
    printf '\\n%s %s\\n' {mark} "$status"
    exit "$status"
}}
umask 077
{chosen}file=$(mktemp "${{TMPDIR:-/tmp}}/vmctl-step.XXXXXX") || exit 125
trap 'rm -f "$file"' EXIT
trap 'exit 129' HUP INT TERM
base64 -d > "$file" <<'{mark}' || exit 125
{packed}{mark}
chmod 700 "$file"
run
"""
    return text.encode("utf-8", "surrogateescape")


class _Talk:
    """One script under way: the ssh client's streams, and what was seen in them."""

    def __init__(self, access: Access, child: process.Child, mark: str, heard: Heard) -> None:
        self._access = access
        self._child = child
        self._end = re.compile(rb"\n" + mark.encode() + rb" (\d{1,3})\n")
        self._longest_end = len(mark) + 8
        self._heard = heard
        self._held = b""
        self._complaint = b""

    def until_over(self, program: bytes, deadline: Deadline, cancelled: Callable[[], bool]) -> int:
        """Send the program and listen until it has told its status."""
        assert self._child.stdin is not None
        sender = threading.Thread(target=self._send, args=(program,), daemon=True)
        sender.start()
        try:
            with selectors.DefaultSelector() as selector:
                for stream in (self._child.stdout, self._child.stderr):
                    assert stream is not None
                    selector.register(stream, selectors.EVENT_READ)
                while selector.get_map():
                    if cancelled():
                        raise errors.InterruptError("Interrupted.")
                    if deadline.passed:
                        raise errors.WaitTimeoutError(
                            f"It did not end within {deadline.seconds:g} s."
                        )
                    status = self._listen(selector)
                    if status is not None:
                        return status
        finally:
            # The end of its input is what ends the script in the guest.
            sender.join(_POLL)
            with contextlib.suppress(OSError):
                self._child.stdin.close()
            self._heard(self._held)
        raise self._lost()

    def _send(self, program: bytes) -> None:
        assert self._child.stdin is not None
        view = memoryview(program)
        with contextlib.suppress(OSError, ValueError):
            while view:
                view = view[self._child.stdin.write(view) :]

    def _listen(self, selector: selectors.BaseSelector) -> int | None:
        """Take in what came; return the status once it was told."""
        for key, _ in selector.select(_POLL):
            data = os.read(key.fd, _CHUNK)
            if not data:
                selector.unregister(key.fileobj)
            elif key.fileobj is self._child.stderr:
                self._complaint = (self._complaint + data)[-_LONGEST_LINE:]
            else:
                status = self._take(data)
                if status is not None:
                    return status
        return None

    def _take(self, data: bytes) -> int | None:
        text = self._held + data
        found = self._end.search(text)
        if found is not None:
            self._held = text[: found.start()]
            return int(found[1])
        # The mark begins on a new line: what could be its beginning waits for the rest.
        cut = text.rfind(b"\n", -self._longest_end)
        cut = len(text) if cut < 0 else cut
        self._heard(text[:cut])
        self._held = text[cut:]
        return None

    def _lost(self) -> errors.VmctlError:
        said = self._complaint.decode("utf-8", "replace").strip()
        status = self._child.wait()
        if status == _SSH_FAILED:
            # The login worked a moment ago.
            return LostError(
                f"Machine '{self._access.name}' broke the ssh connection while a script ran in it.",
                hint="See whether its guest stopped or started anew: "
                f"vmctl logs {self._access.name}",
                details=said,
            )
        words = said.rpartition("\n")[2] or f"its shell ended with status {status}"
        return errors.GuestError(
            f"Machine '{self._access.name}' does not run what ssh asks for: {words}.",
            hint=f"Try it yourself: vmctl ssh {self._access.name}",
            details=said,
        )
