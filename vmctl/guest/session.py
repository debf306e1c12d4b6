"""One command in a guest over ssh, with its pipes, from the word that it could begin to its end."""

from __future__ import annotations

import contextlib
import os
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO

from vmctl import errors, process
from vmctl.guest import shell, ssh
from vmctl.guest.shell import Marks
from vmctl.guest.ssh import Access

_CHUNK = 1 << 16
_END_SECONDS = 10.0

Sink = Callable[[bytes], None]


class NotBegunError(errors.VmctlError):
    """The connection ended before the command began; `said` is what ssh wrote."""

    def __init__(self, said: str) -> None:
        super().__init__("The ssh connection ended before the command began.", details=said)
        self.said = said


class Session:
    """One command in a guest, with its pipes; made by `opened`."""

    def __init__(
        self,
        child: process.Child,
        nonce: str,
        stderr: Sink,
        *,
        terminal: bool,
        begin_within: float,
    ) -> None:
        self._child = child
        self._sink = stderr
        self._terminal = terminal
        self.out = Marks(nonce)
        self.err = Marks(nonce)
        self.runs = False
        self.heard = time.monotonic()
        self.problem: BaseException | None = None
        self._late = threading.Timer(begin_within, self._give_up)
        self._late.daemon = True
        self._late.start()
        self._gave_up = ""
        self._thread = threading.Thread(target=self._pump_errors, daemon=True)
        self._thread.start()

    def _pump_errors(self) -> None:
        assert self._child.stderr is not None
        for data in _pieces(self._child.stderr):
            self.heard = time.monotonic()
            own = self.err.feed(data)
            if self.err.begun and not self.runs:
                self._let_run()
            self._tell(own)
        self._tell(self.err.finish())

    def _let_run(self) -> None:
        self._late.cancel()
        with contextlib.suppress(OSError, ValueError):
            self.send(shell.GO)
        self.runs = True

    def _give_up(self) -> None:
        if not self.main.begun:
            self._gave_up = "The command did not begin: timed out."
            self.abandon()

    def close(self) -> None:
        """End the watch over the beginning."""
        self._late.cancel()

    def _tell(self, data: bytes) -> None:
        if data and self.problem is None:
            try:
                self._sink(data)
            except BaseException as problem:  # noqa: BLE001  (raised again by `check`)
                self.problem = problem

    @property
    def main(self) -> Marks:
        """The stream that tells how the command ended."""
        return self.out if self._terminal else self.err

    def pieces(self) -> Iterator[bytes]:
        """Yield what the command writes to its standard output, as it comes."""
        assert self._child.stdout is not None
        for data in _pieces(self._child.stdout):
            own = self.out.feed(data)
            if own:
                yield own
        rest = self.out.finish()
        if rest:
            yield rest

    def send(self, data: bytes | memoryview) -> None:
        """Give the command input. Raises BrokenPipeError when it takes no more."""
        assert self._child.stdin is not None
        view = memoryview(data)
        while view:
            view = view[self._child.stdin.write(view) :]

    def close_input(self) -> None:
        """Tell the command that there is no more input."""
        assert self._child.stdin is not None
        with contextlib.suppress(OSError):
            self._child.stdin.close()

    def abandon(self) -> None:
        """End the connection; whoever reads or writes gets to the end of it."""
        self._child.terminate()

    @property
    def silent(self) -> bool:
        """True where nothing holds the error stream open any more."""
        return not self._thread.is_alive()

    def ended(self) -> int:
        """Return the status of a command whose output has ended.

        Raises NotBegunError, NotFoundError for a working directory that is not there, and
        VmctlError where the connection was lost.
        """
        self._thread.join(_END_SECONDS)
        marks = self.main
        if marks.status is not None:
            return marks.status
        if marks.failed:
            raise errors.NotFoundError("The guest has no such working directory.")
        said = self.err.noise.decode("utf-8", "replace").strip() or self._gave_up
        if not marks.begun:
            raise NotBegunError(said)
        raise errors.VmctlError(
            "The ssh connection ended while the command ran; how the command ended is not known.",
            hint="See whether the machine still runs: vmctl ps",
            details=said,
        )


class Stop:
    """Ends sessions from another thread."""

    def __init__(self) -> None:
        self._sessions: list[Session] = []
        self._lock = threading.Lock()
        self.asked = False

    def watch(self, session: Session) -> None:
        """Have a session ended with the others; raises InterruptError where that is over."""
        with self._lock:
            if self.asked:
                raise errors.InterruptError("Interrupted.")
            self._sessions.append(session)

    def now(self) -> None:
        """End all sessions, and those to come."""
        with self._lock:
            self.asked = True
            for session in self._sessions:
                session.abandon()


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    # Not by the descriptor: its number may be another file's once the stream is closed.
    while True:
        try:
            data = stream.read(_CHUNK)
        except (OSError, ValueError):
            return
        if not data:
            return
        yield data


@contextlib.contextmanager
def opened(
    access: Access,
    script: Callable[[str], str],
    stderr: Sink,
    *,
    begin_within: float,
    terminal: bool = False,
) -> Iterator[Session]:
    """Start a script in the guest for the length of the block; it is told the nonce of its marks.

    The connection must be there (`ssh.connect`). A command that has not begun after `begin_within`
    seconds never does.
    """
    nonce = os.urandom(8).hex()
    text = script(nonce)
    words = [f"exec sh -c {shlex.quote(text)}"] if terminal else [shell.BOOTSTRAP]
    argv = ssh.command(access, words, terminal=terminal, shared=True)
    with process.beside(argv, terminal=terminal) as child:
        session = Session(child, nonce, stderr, terminal=terminal, begin_within=begin_within)
        try:
            if not terminal:
                with contextlib.suppress(BrokenPipeError):
                    session.send(os.fsencode(text) + b"\n")
            yield session
        finally:
            session.close()
