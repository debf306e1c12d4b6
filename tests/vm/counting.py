"""Runs vmctl and writes down how many calls to libvirt were under way at once, at most.

python counting.py FILE COMMAND…: wraps the functions of the binding's C module, so that every call
counts that goes to the daemon, whoever makes it. FILE gets the number and, after it, the names of
the calls that made it.
"""

from __future__ import annotations

import functools
import pathlib
import sys
import threading
from collections.abc import Callable
from typing import Any

import libvirt

LOCAL = (
    "virEvent",
    "virGet",
    "virInitialize",
    "virRegister",
    "virReset",
    "virConnectClose",
    "virDomainFree",
    "virDomainGetConnect",
    "virDomainGetID",
    "virDomainGetName",
    "virDomainGetUUID",
    "virDomainRef",
    "virNetworkFree",
    "virNetworkGetName",
    "virNetworkGetUUID",
)
"""Beginnings of the names of functions that ask nobody."""


class Count:
    """Calls that have begun and not ended, and the most there were."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: list[str] = []
        self.most: tuple[str, ...] = ()

    def counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapper(*arguments: Any) -> Any:
            with self._lock:
                self._now.append(name)
                if len(self._now) > len(self.most):
                    self.most = tuple(self._now)
            try:
                return call(*arguments)
            finally:
                with self._lock:
                    self._now.remove(name)

        return wrapper


if __name__ == "__main__":
    count = Count()
    module: Any = libvirt.libvirtmod
    for name in dir(module):
        if name.startswith("vir") and not name.startswith(LOCAL):
            setattr(module, name, count.counted(name, getattr(module, name)))
    from vmctl import cli

    status = cli.run(sys.argv[2:])
    pathlib.Path(sys.argv[1]).write_text("\n".join((str(len(count.most)), *count.most)))
    sys.exit(status)
