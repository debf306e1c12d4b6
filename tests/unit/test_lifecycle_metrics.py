"""The text that Prometheus scrapes."""

import dataclasses

from prometheus_client import parser

from tests.unit.test_lifecycle_usage import AFTER, ROW
from vmctl.lifecycle import metrics
from vmctl.lifecycle.usage import Sample
from vmctl.machine.state import State


def parsed(*samples):
    text = metrics.text(samples)
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


LABELS = (("machine", "web"), ("mode", "paravirt"), ("project", "shop"))


def test_counters_of_a_running_machine():
    found = parsed(Sample(row=ROW, counters=AFTER))
    assert found["vmctl_machine_cpu_seconds_total", *LABELS] == 6.0
    assert found["vmctl_machine_state", *LABELS, ("state", "running")] == 1
    assert found["vmctl_machine_disk_read_bytes_total", ("device", "vda"), *LABELS] == 5000
    assert found["vmctl_machine_network_sent_bytes_total", ("device", "vnet0"), *LABELS] == 250
    assert found["vmctl_machine_memory_resident_bytes", *LABELS] == 1 << 29


def test_a_stopped_machine_has_a_state_and_no_usage():
    stopped = dataclasses.replace(ROW, state=State.STOPPED, ready=False)
    found = parsed(Sample(row=stopped, counters=None))
    assert found["vmctl_machine_state", *LABELS, ("state", "stopped")] == 1
    assert found["vmctl_machine_ready", *LABELS] == 0
    assert not [key for key in found if "bytes" in key[0] or "seconds" in key[0]]


def test_names_from_elsewhere_cannot_break_the_format():
    odd = dataclasses.replace(ROW, project='a"b\\c\nd')
    found = parsed(Sample(row=odd, counters=None))
    assert any(("project", 'a"b\\c\nd') in key for key in found)
