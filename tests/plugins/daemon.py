"""A real libvirt for tests that need one: whoever runs it, or one that vmctl starts itself."""

from __future__ import annotations

import pathlib

import pytest

from vmctl.deadline import Deadline
from vmctl.hypervisor import connection as connections
from vmctl.store.layout import Layout

# The first start asks QEMU for its capabilities, which takes seconds.
START_SECONDS = 120.0


@pytest.fixture(scope="session")
def libvirt_daemon(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of the libvirt that machines are made on."""
    layout = Layout(pathlib.Path(tmp_path_factory.mktemp("daemon")))
    connections.connect(connections.default_uri(), layout, Deadline.after(START_SECONDS)).close()
    return connections.default_uri()
