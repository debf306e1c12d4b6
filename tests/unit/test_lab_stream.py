"""What the probe says, in pieces as a serial port gives it."""

from __future__ import annotations

from vmctl.lab.stream import Report

SAID = """\
vmctl-lab begin 6.340000\r
vmctl-lab fact hypervisor TCGTCGTCGTCG\r
vmctl-lab sample cpu-integer 12.5 ns 2000\r
[    6.4] noise of the kernel
vmctl-lab void port-io Operation not permitted\r
vmctl-lab sample disk-sequential 512.25 MiB/s 17\r
vmctl-lab end 8.1\r
vmctl-lab done\r
"""


def test_it_does_not_matter_how_the_text_is_cut() -> None:
    whole, pieces = Report(), Report()
    whole.feed(SAID)
    for letter in SAID:
        pieces.feed(letter)
    assert whole == pieces
    assert whole.clock == 6.34
    assert whole.facts == {"hypervisor": "TCGTCGTCGTCG"}
    assert whole.missing == {"port-io": "Operation not permitted"}
    assert [(each.workload, each.value, each.unit) for each in whole.samples] == [
        ("cpu-integer", 12.5, "ns"),
        ("disk-sequential", 512.25, "MiB/s"),
    ]
    assert whole.last == "disk-sequential"
    assert whole.ended


def test_an_unfinished_line_is_not_taken_yet() -> None:
    report = Report()
    report.feed("vmctl-lab sample timer 12")
    assert not report.samples
    report.feed("34 ns 5\n")
    assert report.samples[0].value == 1234


def test_what_a_guest_makes_up_is_no_sample() -> None:
    report = Report()
    report.feed(
        "vmctl-lab sample timer nan ns 1\nvmctl-lab sample timer -5 ns 1\n"
        "vmctl-lab sample timer 1e999 ns 1\nvmctl-lab sample timer\nvmctl-lab\n"
        "vmctl-lab begin soon\n"
    )
    assert not report.samples
    assert report.clock is None
    assert not report.ended
