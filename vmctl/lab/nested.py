"""A comparison inside the lab host: real KVM on a host that has none.

The lab host is a machine with an emulated processor that has AMD-V. It is brought up, vmctl in it
compares, its results are brought back after each run, and the machine is removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import pathlib
import queue
import re
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from vmctl import errors, shipped
from vmctl.deadline import Deadline
from vmctl.guest import remote
from vmctl.guest.remote import Streams
from vmctl.guest.shell import Request as Command
from vmctl.guest.ssh import Access
from vmctl.host import gather
from vmctl.hypervisor import connection as connections
from vmctl.lab import caveat, program, results
from vmctl.lab.results import Results
from vmctl.lifecycle import access as accesses
from vmctl.lifecycle import power, up
from vmctl.lifecycle.events import Event, Note, Phase, Step
from vmctl.store import home, locks
from vmctl.store.layout import Layout

MACHINE = "lab-host-of-compare"
"""The machine's name: there is one at a time."""

_ROOT = "root"
_PLACE = "/var/tmp/vmctl-compare"  # noqa: S108  (the guest's, which nobody shares)
_RESULTS = f"{_PLACE}/results.json"
_SPEC = f"{_PLACE}/spec.yaml"
_LIBRARY = "/opt/vmctl/vmctl/lab/probe"
_FACTS_SECONDS = 20.0
_READY_SECONDS = 600.0
_FETCH_SECONDS = 120.0
_SALVAGE_SECONDS = 30.0
"""How long an interrupted comparison's results may take to arrive."""

_LARGEST = 256 << 20
_KEPT_LINES = 20
_LINE = re.compile(r"(?:(ok|FAILED|[✓✗•!-]) +)?(.+)")
_ALARMING = ("FAILED", "✗", "!")
_PREPARE = f"""set -e
mkdir -p {_PLACE}
tar -x -C {_PLACE}
mv {_PLACE}/{program.BROUGHT.name}* {_LIBRARY}/
systemctl start libvirt-ready.service
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for: the words for `vmctl compare` inside, and the spec, if any."""

    words: tuple[str, ...]
    spec: pathlib.Path | None = None
    uri: str | None = None
    keep: bool = False


class Nested:
    """A comparison inside the lab host; `results` has what was brought back, at any time."""

    def __init__(self, request: Request, saved: Callable[[Results], None]) -> None:
        """Take `saved`, which is called with the results when they have been brought back."""
        self.request = request
        self.results: Results | None = None
        self._saved = saved
        self._access: Access | None = None

    def events(self) -> Iterator[Event]:
        """Carry it out. Closing the iterator brings back what there is and removes the machine."""
        layout = Layout.default()
        home.opened(layout)
        with locks.hold(layout.lock("lab", "nested"), None, "The lab host of compare"):
            # One that a killed comparison has left.
            yield from self._removed()
            try:
                yield from self._up()
                yield from self._prepared(layout)
                yield from self._told("compare inside", self._command(), None, None)
                self._bring_back(_FETCH_SECONDS)
            finally:
                self._leave()
            if self.request.keep:
                hint = f"Get in: vmctl ssh {MACHINE}; remove it: vmctl down -y {MACHINE}"
                yield Note(machine=MACHINE, level="info", text="is kept, as you asked", hint=hint)

    def _leave(self) -> None:
        """Bring back what there is after a bad end, and remove the machine whatever happens."""
        try:
            if self._access is not None and self.results is None:
                with contextlib.suppress(errors.VmctlError):
                    self._bring_back(_SALVAGE_SECONDS)
        finally:
            if not self.request.keep:
                _to_the_end(self._removed)

    def _up(self) -> Iterator[Event]:
        path = shipped.directory("templates") / "lab-host.yaml"
        sets = (f"name={MACHINE}", "project=lab")
        yield from up.run(up.Request(path=path, uri=self.request.uri, sets=sets))

    def _removed(self) -> Iterator[Event]:
        request = power.Request(names=[MACHINE], uri=self.request.uri)
        yield from power.down(request)

    def _prepared(self, layout: Layout) -> Iterator[Event]:
        """Take the program that measures inside, and wait until libvirt there knows QEMU."""
        with connections.opened(self.request.uri, layout) as connection:
            self._access = accesses.find(connection, layout, MACHINE)
        with tempfile.TemporaryFile() as stream:
            stream.write(_luggage(self.request.spec))
            stream.seek(0)
            source = stream.fileno()
            yield from self._told("prepare", ("sh", "-c", _PREPARE), _READY_SECONDS, source)

    def _command(self) -> tuple[str, ...]:
        words = ("vmctl", "compare", *self.request.words, "-y", "--json", _RESULTS)
        return words if self.request.spec is None else (*words, _SPEC)

    def _told(
        self, what: str, argv: tuple[str, ...], seconds: float | None, stdin: int | None
    ) -> Iterator[Event]:
        """Run a command as root and yield what it says on its standard error.

        Raises GuestError with its last lines where it fails.
        """
        listener = _Listener(what)
        timeout = Deadline.after(seconds) if seconds is not None else None
        thread = threading.Thread(
            target=listener.attend, args=(self._run, argv, timeout, stdin), daemon=True
        )
        thread.start()
        yield from listener.events()
        if listener.problem is not None:
            raise listener.problem
        if listener.status:
            raise errors.GuestError(
                f"'{' '.join(argv[:2])}' failed in the lab host, with status {listener.status}.",
                hint=f"Look inside: vmctl compare --nested --keep; then: vmctl ssh {MACHINE}",
                details="\n".join(listener.lines),
            )

    def _run(
        self,
        argv: tuple[str, ...],
        timeout: Deadline | None,
        stdin: int | None,
        stdout: Callable[[bytes], None],
        stderr: Callable[[bytes], None],
    ) -> int:
        assert self._access is not None
        streams = Streams(stdin=stdin, stdout=stdout, stderr=stderr)
        command = Command(argv=argv, user=_ROOT, env={"NO_COLOR": "1"})
        return remote.run(self._access, command, streams, timeout=timeout)

    def _bring_back(self, seconds: float) -> None:
        """Fetch the results; what the guest sends is data that is checked like any file."""
        pieces: list[bytes] = []

        def take(piece: bytes) -> None:
            if sum(map(len, pieces)) > _LARGEST:
                raise errors.RefusedError("The lab host's results are too large to be such.")
            pieces.append(piece)

        limit = Deadline.after(seconds)
        status = self._run(("cat", _RESULTS), limit, None, take, lambda _piece: None)
        if status == 0:
            self.results = self._marked(b"".join(pieces))
            self._saved(self.results)

    def _marked(self, content: bytes) -> Results:
        """Return results with the host that emulates the lab host written into them."""
        try:
            found = results.from_dict(json.loads(content))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
            raise errors.GuestError(
                "What the lab host sent is no result of a comparison.", details=str(problem)
            ) from None
        found.host |= {caveat.MARK: True, caveat.OUTER: _outer()}
        return found


def _outer() -> dict[str, object]:
    """Return what is told of the host that emulates the lab host."""
    import os
    import platform

    facts = gather.gather(Deadline.after(_FACTS_SECONDS))
    return {
        "name": platform.node(),
        "cpu": facts.cpu.model,
        "cores": os.cpu_count() or 1,
        "kernel": facts.kernel,
        "virtual": facts.virtual,
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def _luggage(spec: pathlib.Path | None) -> bytes:
    """Return an archive of the probe, which the lab host cannot compile, and of the spec."""
    stream = io.BytesIO()
    with (
        tempfile.TemporaryDirectory() as directory,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        contents = program.luggage(pathlib.Path(directory))
        if spec is not None:
            contents[pathlib.PurePath(_SPEC).name] = spec.read_bytes()
        for path, content in contents.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def _to_the_end(steps: Callable[[], Iterator[Event]]) -> None:
    """Carry steps out to the end in a thread of its own, which no second Ctrl-C reaches."""
    problems: list[errors.VmctlError] = []

    def attend() -> None:
        try:
            for _ in steps():
                pass
        except errors.VmctlError as problem:
            problems.append(problem)

    thread = threading.Thread(target=attend, name="vmctl-lab-removal")
    thread.start()
    thread.join()
    if problems:
        raise problems[0]


class _Listener:
    """Turns what a command in the guest says into events."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._rest = b""
        self.lines: list[str] = []
        self.status = 0
        self.problem: BaseException | None = None

    def attend(
        self,
        run: Callable[..., int],
        argv: Sequence[str],
        timeout: Deadline | None,
        stdin: int | None,
    ) -> None:
        """Run the command, in a thread of its own."""
        try:
            self.status = run(argv, timeout, stdin, lambda _piece: None, self._take)
        except BaseException as problem:  # noqa: BLE001  (raised again by the caller's thread)
            self.problem = problem
        self._queue.put(None)

    def _take(self, piece: bytes) -> None:
        *whole, self._rest = (self._rest + piece).split(b"\n")
        for line in whole:
            self._queue.put(line.decode("utf-8", "replace"))

    def events(self) -> Iterator[Event]:
        """Yield the step, and what is said meanwhile: the lines of vmctl in the lab host."""
        began = time.monotonic()
        yield Step(machine=MACHINE, step=self._what, phase=Phase.STARTED)
        while (line := self._queue.get()) is not None:
            found = _LINE.fullmatch(line.strip())
            if found is None:
                continue
            mark, text = found.groups()
            self.lines = [*self.lines[1 - _KEPT_LINES :], text]
            level = "warning" if mark in _ALARMING else "info"
            yield Note(machine="inside", level=level, text=text)
        phase = Phase.FAILED if self.problem is not None or self.status else Phase.DONE
        seconds = time.monotonic() - began
        yield Step(machine=MACHINE, step=self._what, phase=phase, seconds=seconds)
