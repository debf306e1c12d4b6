"""Unit tests start no process, open no connection and ask no libvirt; a test that does is stopped.

The interpreter's own audit events are watched, so it does not matter which library tries. A test
that must run a program (of the module that runs programs, say) carries `allow_process`.
"""

from __future__ import annotations

import contextlib
import importlib
import pathlib
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

UNIT_TESTS = pathlib.Path(__file__).parents[1] / "unit"

PROCESS_EVENTS = frozenset(
    {
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.system",
        "pty.spawn",
        "subprocess.Popen",
    }
)
LIBVIRT_DOORS = ("open", "openAuth", "openReadOnly")


class ForbiddenInUnitTestError(BaseException):
    """Not an Exception, so that no code under test can swallow it."""


class _Watch:
    """Whether a unit test is running; an audit hook cannot be taken off again."""

    active = False


def _refuse(what: str) -> NoReturn:
    raise ForbiddenInUnitTestError(
        f"A unit test did this: {what}. Move the test to another directory under tests/, or mark "
        "it 'allow_process' where the program is what it tests."
    )


def _on_audit_event(event: str, arguments: tuple[Any, ...]) -> None:
    if not _Watch.active:
        return
    if event in PROCESS_EVENTS:
        _refuse(f"{event}{arguments!r}")
    # An address of the internet protocols is a tuple, one of a local socket is a path.
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        _refuse(f"{event}{arguments[1]!r}")


sys.addaudithook(_on_audit_event)


@pytest.fixture(autouse=True)
def nothing_outside_in_unit_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    """Forbid processes, connections and libvirt in tests under tests/unit."""
    allowed = request.node.get_closest_marker("allow_process") is not None
    if allowed or not request.node.path.is_relative_to(UNIT_TESTS):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        _close_doors(patch)
        _Watch.active = True
        try:
            yield
        finally:
            _Watch.active = False


def _close_doors(patch: pytest.MonkeyPatch) -> None:
    """Put a refusal where libvirt is opened and where programs are looked for and run."""
    process = importlib.import_module("vmctl.process")
    patch.setattr(process, "run", lambda argv, *_, **__: _refuse(f"process.run({argv!r})"))
    with contextlib.suppress(ImportError):
        libvirt = importlib.import_module("libvirt")
        for door in LIBVIRT_DOORS:
            patch.setattr(libvirt, door, lambda uri=None, *_: _refuse(f"libvirt.open({uri!r})"))
