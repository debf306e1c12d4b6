"""The other ends of the network workloads, which run on the host."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence

from vmctl import errors, process
from vmctl.lab.program import Probe
from vmctl.lab.tools import Tool

LOOPBACK = "127.0.0.1"


def start(
    opened: contextlib.ExitStack, probe: Probe, chosen: Sequence[Tool], addresses: Sequence[str]
) -> tuple[int, dict[str, int]]:
    """Start a server of each kind on each address, the same port everywhere, until `opened` ends.

    Returns the probe's port and those of the tools by workload: a server that is still busy with
    one must not turn the next away. Raises HostError.
    """
    port = 0
    for address in addresses:
        port = _probe(opened, probe, address, port)
    ports: dict[str, int] = {}
    for tool in chosen:
        if tool.serves:
            ports[tool.workload] = _free_port()
            for address in addresses:
                server = tool.server(address, ports[tool.workload])
                server[0] = process.find(server[0]) or server[0]
                # The probe ends it, even where vmctl is killed and cannot.
                words = [os.fspath(probe.path), "keep", *server]
                _beside(opened, words)
    return port, ports


def _probe(opened: contextlib.ExitStack, probe: Probe, address: str, port: int) -> int:
    child = _beside(opened, [os.fspath(probe.path), "serve", address, str(port)])
    assert child.stdout is not None
    try:
        return int(child.stdout.readline())
    except ValueError:
        raise errors.HostError(
            f"No port of {address} could be opened for the network workloads."
        ) from None


def _beside(opened: contextlib.ExitStack, words: Sequence[str]) -> process.Child:
    """Start a program that ends with `opened`, and by itself when its standard input does."""
    child = opened.enter_context(process.beside(words))
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            opened.callback(stream.close)
    return child


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind((LOOPBACK, 0))
        return int(trial.getsockname()[1])
