"""The figures of pools in Prometheus' text format.

Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` on counters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vmctl.runner.pooling.ledger import State

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_COUNTERS = (
    ("claims", "Machines handed to jobs.", "claims"),
    ("claim_wait_seconds", "Time that jobs waited for a machine.", "claim_seconds"),
    ("claims_abandoned", "Jobs that left the queue before they had a machine.", "abandoned"),
    ("renewals", "Machines made ready: reset, or made anew.", "renewals"),
    ("renewal_seconds", "Time that took.", "renewal_seconds"),
    ("renewal_failures", "Machines that could not be made ready.", "failures"),
)


def text(statuses: Sequence[Mapping[str, Any]]) -> str:
    """Return the figures of pools, as their supervisors tell them."""
    from prometheus_client import CollectorRegistry, generate_latest

    class _Pools:
        def collect(self) -> Iterator[Metric]:
            return _families(statuses)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Pools())
    return generate_latest(registry).decode()


def _families(statuses: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    slots = GaugeMetricFamily(
        "vmctl_pool_slots", "Slots of a pool by what they are.", labels=["pool", "state"]
    )
    waiting = GaugeMetricFamily(
        "vmctl_pool_waiting", "Jobs that wait for a machine.", labels=["pool"]
    )
    up = GaugeMetricFamily("vmctl_pool_supervised", "1 where a supervisor runs.", labels=["pool"])
    drained = GaugeMetricFamily("vmctl_pool_drained", "1 for a drained pool.", labels=["pool"])
    for each in statuses:
        name = str(each["pool"]["name"])
        states = [str(slot["state"]) for slot in each["slots"]]
        for state in State:
            slots.add_metric([name, state.value], states.count(state.value))
        waiting.add_metric([name], each["waiting"])
        up.add_metric([name], int(bool(each["supervisor"])))
        drained.add_metric([name], int(bool(each["pool"]["drained"])))
    yield from (slots, waiting, up, drained)
    for metric, meaning, field in _COUNTERS:
        counter = CounterMetricFamily(f"vmctl_pool_{metric}", meaning, labels=["pool"])
        for each in statuses:
            if field in each["counts"]:
                counter.add_metric([str(each["pool"]["name"])], each["counts"][field])
        yield counter
