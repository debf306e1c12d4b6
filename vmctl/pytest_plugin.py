"""A pytest plugin: the fixture `vm` gives a test a fresh machine.

Pytest loads it wherever vmctl is installed, so that it imports nothing of vmctl's until a test asks
for a machine. docs/ci/pytest.md is its manual.
"""

from __future__ import annotations

import itertools
import pathlib
import re
import shutil
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from vmctl.runner.held import Held

_MARKER = "vm_image"
_OPTIONS = ("mode", "cpus", "memory", "disk", "nested")
_POOL = "pool"
_LINES_SHOWN = 60
_held = pytest.StashKey["Held"]()

Wish = tuple[str, dict[str, Any]]
"""An image or a spec, and what is laid over it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the command line, and those of the configuration file."""
    group = parser.getgroup("vm", "virtual machines (vmctl)")
    group.addoption("--vm-image", help="Image or spec of machines that no marker names one for.")
    group.addoption("--vm-mode", help="Mode of such machines: full, hardware, paravirt or auto.")
    group.addoption("--vm-pool", help="Take machines that no marker describes from this pool.")
    group.addoption(
        "--vm-artifacts", metavar="DIR", help="Keep the console logs of failed tests below DIR."
    )
    parser.addini("vm_image", "Image or spec of the machines of `vm`.", default="tiny")
    parser.addini("vm_mode", "Mode of the machines of `vm`.", default="auto")
    parser.addini("vm_pool", "Pool that has the machines of `vm`, warm.", default="")
    parser.addini("vm_memory", "Memory of the machines of `vm`, as 512MiB.", default="")
    parser.addini("vm_connection", "Libvirt connection of the machines of `vm`.", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        f"{_MARKER}(*images, mode=, cpus=, memory=, disk=, nested=, pool=): the machines of the "
        "fixture `vm`: an image or a spec each, and a mode or a list of modes; or a warm pool",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have a test run once for each image and mode that its marker names."""
    if "vm" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker(_MARKER)
    wishes = list(_wishes(marker, metafunc.config))
    if len(wishes) > 1:
        ids = [f"{what}-{settings['mode']}" for what, settings in wishes]
        metafunc.parametrize("vm", wishes, indirect=True, ids=ids)


def _wishes(marker: pytest.Mark | None, config: pytest.Config) -> Iterator[Wish]:
    """Yield each machine that a test is to have."""
    default = config.getoption("vm_image") or config.getini("vm_image")
    given = dict(marker.kwargs) if marker is not None else {}
    unknown = sorted(set(given) - {*_OPTIONS, _POOL})
    if unknown:
        known = ", ".join([*_OPTIONS, _POOL])
        raise pytest.UsageError(f"{_MARKER} has no '{unknown[0]}'; it has: {known}.")
    pool = given.get(_POOL, "")
    if marker is None:
        pool = config.getoption("vm_pool") or config.getini("vm_pool")
    if pool:
        if set(given) > {_POOL} or (marker is not None and marker.args):
            raise pytest.UsageError(f"Machines of pool '{pool}' are made already: give pool= only.")
        yield "", {_POOL: pool}
        return
    modes = given.pop("mode", None) or config.getoption("vm_mode") or config.getini("vm_mode")
    settings = {"memory": config.getini("vm_memory"), **given}
    images = marker.args if marker is not None and marker.args else (default,)
    for image, mode in itertools.product(images, [modes] if isinstance(modes, str) else modes):
        yield str(image), {**settings, "mode": mode}


@pytest.fixture
def vm(request: pytest.FixtureRequest) -> Iterator[Held]:
    """A fresh machine that is ready: vm.run("…"), vm.copy_in, vm.copy_out, vm.console().

    It is gone after the test, and when pytest is killed. `@pytest.mark.vm_image` chooses it.
    """
    from vmctl import errors
    from vmctl.runner import held

    marker = request.node.get_closest_marker(_MARKER)
    what, settings = getattr(request, "param", None) or next(_wishes(marker, request.config))
    uri = request.config.getini("vm_connection") or None
    pool = settings.get(_POOL, "")
    machine = held.of_pool(pool) if pool else held.machine(what, settings, uri=uri)
    try:
        found = machine.__enter__()
    except errors.VmctlError as problem:
        parts = [problem.message, problem.details, f"hint: {problem.hint}" if problem.hint else ""]
        pytest.fail("\n".join(filter(None, parts)), pytrace=False)
    request.node.stash[_held] = found
    try:
        yield found
    finally:
        machine.__exit__(None, None, None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],  # noqa: ARG001
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put what the guest wrote to its console beside a failure, while the machine is there."""
    report = yield
    found = item.stash.get(_held, None)
    if found is not None and report.when == "call" and report.failed:
        from vmctl.ui import escape

        text = escape.printable(found.console(_LINES_SHOWN))
        report.sections.append((f"console of {found.name} ({found.image}, {found.mode})", text))
        directory = item.config.getoption("vm_artifacts")
        if directory:
            _keep(found, pathlib.Path(directory) / _as_file_name(item.nodeid))
    return report


def _as_file_name(node: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", node).strip("-")


def _keep(found: Held, place: pathlib.Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    if found.console_log.exists():
        shutil.copyfile(found.console_log, place / "console.log")
