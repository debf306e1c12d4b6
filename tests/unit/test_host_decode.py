"""Plain data that does not fit is refused with the place of the fault."""

from __future__ import annotations

import pytest

from vmctl.host import decode
from vmctl.host.facts import HostFacts, ProbeResult


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (None, "HostFacts"),
        ([], "HostFacts"),
        ({"surprise": 1}, "'surprise'"),
        ({"architecture": 64}, "HostFacts.architecture"),
        ({"vhost_net": 1}, "HostFacts.vhost_net"),
        ({"cpu": {"count": True}}, "HostFacts.cpu.count"),
        ({"modules": "kvm"}, "HostFacts.modules"),
        ({"modules": [1]}, r"HostFacts.modules\[\]"),
        ({"parameters": {"kvm.x": 1}}, "HostFacts.parameters.kvm.x"),
        ({"probe": {"cases": [{"name": "sse"}]}}, r"HostFacts.probe.cases\[\]"),
    ],
)
def test_refused(data: object, where: str) -> None:
    with pytest.raises(ValueError, match=where):
        HostFacts.from_dict(data)


def test_defaults_and_none() -> None:
    facts = HostFacts.from_dict({"kvm_api": None, "probe": None})
    assert facts == HostFacts()


def test_whole_numbers_are_floats_too() -> None:
    assert decode.decode(ProbeResult, {"seconds": 2}).seconds == 2.0
