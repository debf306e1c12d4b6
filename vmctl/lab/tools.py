"""Standard tools as workloads: what they are asked, and what their answers mean.

The host's own copy of a tool travels with its libraries, so that one build runs in every mode,
in the container and on the host.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pathlib
import re
import tarfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from vmctl import process
from vmctl.images import elf

DIRECTORY = "tools"
LOADER = "ld.so"
_LIBRARIES = tuple(
    pathlib.Path(place)
    for place in (
        "/lib/x86_64-linux-gnu",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/x86_64-linux-gnu/ceph",
        "/lib64",
        "/usr/lib64",
        "/usr/lib",
    )
)
LENGTH = 60 << 20
"""Bytes of the disk that are read, as probe.c has it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Where:
    """What a tool is told of the place it runs in; `ports` by workload, `seconds` for each."""

    disk: str
    offset: int
    peer: str
    ports: dict[str, int]
    seconds: int


@dataclasses.dataclass(frozen=True, slots=True)
class Tool:
    """A workload that another program measures; `understood` turns its output into the value."""

    workload: str
    program: str
    arguments: Callable[[Where], list[str]]
    understood: Callable[[str], float]
    serves: tuple[str, ...] = ()

    def server(self, address: str, port: int) -> list[str]:
        """Return the command that is the other end of a network tool."""
        return [word.format(address=address, port=port) for word in self.serves]


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError("its output has no such figure")
    return float(found[1])


def hackbench(text: str) -> float:
    """Seconds for all messages."""
    return _number(r"Time: ([0-9.]+)", text)


def sysbench_cpu(text: str) -> float:
    """Events a second."""
    return _number(r"events per second: +([0-9.]+)", text)


def sysbench_memory(text: str) -> float:
    """MiB a second."""
    return _number(r"transferred \(([0-9.]+) MiB/sec\)", text)


def stress_ng(text: str) -> float:
    """Bogus operations a second of wall clock."""
    return _number(r"metrc: \[\d+\] cpu +\d+ +[0-9.]+ +[0-9.]+ +[0-9.]+ +([0-9.]+)", text)


def sockperf(text: str) -> float:
    """Nanoseconds for a round trip; the tool says microseconds one way."""
    return 2000 * _number(r"Summary: Latency is ([0-9.]+) usec", text)


def _json(text: str) -> dict[str, Any]:
    """Return the JSON object in an output, which may have warnings before it."""
    data = json.loads(text[text.index("{") : text.rindex("}") + 1])
    if not isinstance(data, dict):
        raise ValueError("its output is no JSON object")
    return data


def iperf3(text: str) -> float:
    """MiB a second, as the receiver counted them."""
    return float(_json(text)["end"]["sum_received"]["bits_per_second"]) / 8 / (1 << 20)


def fio_latency(text: str) -> float:
    """Nanoseconds for a read, from submission to completion."""
    return float(_fio(text)["lat_ns"]["mean"])


def fio_rate(text: str) -> float:
    """Reads a second."""
    return float(_fio(text)["iops"])


def fio_throughput(text: str) -> float:
    """MiB a second."""
    return float(_fio(text)["bw_bytes"]) / (1 << 20)


def _fio(text: str) -> dict[str, Any]:
    read = _json(text)["jobs"][0]["read"]
    if not isinstance(read, dict):
        raise ValueError("its output has no reads")
    return read


def _fio_arguments(rw: str, size: str, depth: int) -> Callable[[Where], list[str]]:
    def arguments(where: Where) -> list[str]:
        return [
            "--name=lab",
            f"--filename={where.disk}",
            "--readonly",
            "--direct=1",
            "--thread",
            f"--rw={rw}",
            f"--bs={size}",
            f"--iodepth={depth}",
            f"--ioengine={'libaio' if depth > 1 else 'psync'}",
            f"--offset={where.offset}",
            f"--size={LENGTH}",
            f"--runtime={where.seconds}",
            "--time_based",
            "--output-format=json",
        ]

    return arguments


def _iperf_arguments(workload: str, *more: str) -> Callable[[Where], list[str]]:
    def arguments(where: Where) -> list[str]:
        port = str(where.ports[workload])
        return ["-c", where.peer, "-p", port, "-t", str(where.seconds), "-J", *more]

    return arguments


_IPERF = ("iperf3", "-s", "-B", "{address}", "-p", "{port}", "--logfile", "/dev/null")

TOOLS = (
    Tool(
        "sysbench-cpu",
        "sysbench",
        lambda where: ["cpu", f"--time={where.seconds}", "run"],
        sysbench_cpu,
    ),
    Tool(
        "stress-ng-cpu",
        "stress-ng",
        lambda where: [
            *("--cpu", "1", "--cpu-method", "int64", "--timeout", f"{where.seconds}s"),
            *("--metrics-brief", "--temp-path", "/tmp"),  # noqa: S108  (inside the guest)
        ],
        stress_ng,
    ),
    Tool(
        "sysbench-memory",
        "sysbench",
        lambda where: [
            *("memory", f"--time={where.seconds}", "--memory-block-size=1M"),
            *("--memory-total-size=100T", "run"),
        ],
        sysbench_memory,
    ),
    Tool("hackbench", "hackbench", lambda _: ["-g", "1", "-f", "4", "-l", "100"], hackbench),
    Tool("fio-random-1", "fio", _fio_arguments("randread", "4k", 1), fio_latency),
    Tool("fio-random-32", "fio", _fio_arguments("randread", "4k", 32), fio_rate),
    Tool("fio-sequential", "fio", _fio_arguments("read", "1M", 1), fio_throughput),
    Tool(
        "sockperf",
        "sockperf",
        lambda where: [
            *("ping-pong", "--tcp", "-i", where.peer, "-p", str(where.ports["sockperf"])),
            *("-t", str(where.seconds)),
        ],
        sockperf,
        ("sockperf", "server", "--tcp", "-i", "{address}", "-p", "{port}"),
    ),
    Tool("iperf3-receive", "iperf3", _iperf_arguments("iperf3-receive", "-R"), iperf3, _IPERF),
    Tool("iperf3-send", "iperf3", _iperf_arguments("iperf3-send"), iperf3, _IPERF),
)
BY_NAME = {tool.workload: tool for tool in TOOLS}


def chosen(workloads: Iterable[str]) -> list[Tool]:
    """Return the tools among some workloads, in the order of the catalogue."""
    wanted = set(workloads)
    return [tool for tool in TOOLS if tool.workload in wanted]


def absent(tools: Sequence[Tool]) -> dict[str, str]:
    """Return, by workload, why a tool cannot be used: it is not installed on this host."""
    return {
        tool.workload: f"{tool.program} is not installed on this host"
        for tool in tools
        if process.find(tool.program) is None
    }


def archive_into(archived: tarfile.TarFile, prefix: str, tools: Sequence[Tool]) -> None:
    """Add programs with all libraries that they ask for, and the loader that starts them."""
    waiting: list[str] = []
    added: set[str] = set()
    for program in sorted({tool.program for tool in tools}):
        place = process.find(program)
        if place is None:
            continue
        content = pathlib.Path(place).read_bytes()
        _add(archived, f"{prefix}/{program}", content)
        waiting += elf.Elf(content).needed
        loader = pathlib.Path(elf.Elf(content).interpreter)
        if LOADER not in added:
            added.add(LOADER)
            _add(archived, f"{prefix}/{LOADER}", loader.read_bytes())
    while waiting:
        name = waiting.pop()
        path = next((place / name for place in _LIBRARIES if (place / name).is_file()), None)
        if name in added or path is None:
            continue
        added.add(name)
        content = path.read_bytes()
        _add(archived, f"{prefix}/lib/{name}", content)
        waiting += elf.Elf(content).needed


def _add(archived: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o755
    archived.addfile(entry, io.BytesIO(content))


def command(tool: Tool, place: str, where: Where) -> list[str]:
    """Return the words that run a tool below `place`, with its own libraries."""
    directory = os.path.join(place, DIRECTORY)
    words = [f"{directory}/{LOADER}", "--library-path", f"{directory}/lib"]
    return [*words, f"{directory}/{tool.program}", *tool.arguments(where)]
