"""The counters of machines in Prometheus' text format.

Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` on counters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vmctl.lifecycle.usage import Sample

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_MACHINE = ("machine", "project", "mode")
_DISK_COUNTERS = (
    ("disk_read_requests", "Read requests.", "read_requests"),
    ("disk_read_bytes", "Bytes read.", "read_bytes"),
    ("disk_write_requests", "Write requests.", "write_requests"),
    ("disk_written_bytes", "Bytes written.", "written_bytes"),
)
_NIC_COUNTERS = (
    ("network_received_bytes", "Bytes that the guest received.", "received_bytes"),
    ("network_received_packets", "Packets that the guest received.", "received_packets"),
    ("network_sent_bytes", "Bytes that the guest sent.", "sent_bytes"),
    ("network_sent_packets", "Packets that the guest sent.", "sent_packets"),
)
_MEMORY = (
    ("memory_bytes", "Memory that the guest has.", "memory"),
    ("memory_used_bytes", "Memory that the guest says it uses (virtio balloon).", "used"),
    ("memory_resident_bytes", "Host memory that QEMU's process takes.", "resident"),
)


def text(samples: Sequence[Sample]) -> str:
    """Return all counters of machines in Prometheus' text format, for a textfile collector."""
    from prometheus_client import CollectorRegistry, generate_latest

    class _Machines:
        def collect(self) -> Iterator[Metric]:
            return _families(samples)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Machines())
    return generate_latest(registry).decode()


def _families(samples: Sequence[Sample]) -> Iterator[Metric]:
    yield from _states(samples)
    yield from _machine_counters(samples)
    yield from _device_counters(samples)


def _labels(found: Sample) -> list[str]:
    return [found.row.name, found.row.project, found.row.mode]


def _states(samples: Sequence[Sample]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    state = GaugeMetricFamily(
        "vmctl_machine_state", "1 for the state that a machine is in.", labels=[*_MACHINE, "state"]
    )
    ready = GaugeMetricFamily(
        "vmctl_machine_ready", "1 when the machine was ready in this run.", labels=_MACHINE
    )
    cpus = GaugeMetricFamily("vmctl_machine_cpus", "Virtual CPUs.", labels=_MACHINE)
    for found in samples:
        state.add_metric([*_labels(found), found.row.state.value], 1)
        ready.add_metric(_labels(found), int(found.row.ready))
        cpus.add_metric(_labels(found), found.counters.cpus if found.counters else found.row.cpus)
    yield from (state, ready, cpus)


def _machine_counters(samples: Sequence[Sample]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    seconds = CounterMetricFamily(
        "vmctl_machine_cpu_seconds", "Host CPU time that QEMU used.", labels=_MACHINE
    )
    for found in samples:
        if found.counters and found.counters.cpu_seconds is not None:
            seconds.add_metric(_labels(found), found.counters.cpu_seconds)
    yield seconds
    for name, meaning, field in _MEMORY:
        gauge = GaugeMetricFamily(f"vmctl_machine_{name}", meaning, labels=_MACHINE)
        for found in samples:
            value = getattr(found.counters, field) if found.counters else None
            if value is not None:
                gauge.add_metric(_labels(found), value)
        yield gauge


def _device_counters(samples: Sequence[Sample]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    kinds = (("disks", _DISK_COUNTERS), ("nics", _NIC_COUNTERS))
    for devices, families in kinds:
        for name, meaning, field in families:
            counter = CounterMetricFamily(
                f"vmctl_machine_{name}", meaning, labels=[*_MACHINE, "device"]
            )
            for found in samples:
                for device in getattr(found.counters, devices) if found.counters else ():
                    counter.add_metric([*_labels(found), device.device], getattr(device, field))
            yield counter
