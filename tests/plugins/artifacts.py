"""Keeps what a failed test leaves behind: tests/artifacts/<test>/ holds its report and the logs."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import time
from collections.abc import Generator, Iterator

import pytest

ARTIFACTS = pathlib.Path(__file__).parents[1] / "artifacts"
KEPT_PATTERNS = ("*.log", "*.xml", "intent.json", "spec.yaml")
KEPT_SIZE = 4 * 1024 * 1024
KEPT_LINES = 12
FRESH_SECONDS = 300


def directory_for(node_id: str) -> pathlib.Path:
    """Return the directory of one test, named after it."""
    return ARTIFACTS / re.sub(r"[^A-Za-z0-9._-]+", "-", node_id.removeprefix("tests/")).strip("-")


@pytest.fixture
def artifacts(request: pytest.FixtureRequest) -> Iterator[pathlib.Path]:
    """A directory for what helps to understand a failure; it goes when the test passes."""
    place = directory_for(request.node.nodeid)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    yield place
    if not getattr(request.node, "call_failed", False):
        shutil.rmtree(place, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the report and the logs of a failed test of real guests, while they still exist."""
    report = yield
    if report.failed and report.when != "teardown":
        item.call_failed = True  # type: ignore[attr-defined]
        if item.get_closest_marker("vm"):
            _keep(item, report.longreprtext)
            # What runs elsewhere shows no files, only what was printed.
            report.sections.extend(_consoles(item))
    return report


def _keep(item: pytest.Item, text: str) -> None:
    place = directory_for(item.nodeid)
    place.mkdir(parents=True, exist_ok=True)
    place.joinpath("report.txt").write_text(text, encoding="utf-8")
    for root in _places_of(item):
        for pattern in KEPT_PATTERNS:
            for found in root.rglob(pattern):
                if found.is_file() and found.stat().st_size <= KEPT_SIZE:
                    shutil.copy(found, place / "-".join(found.relative_to(root).parts))


def _consoles(item: pytest.Item) -> Iterator[tuple[str, str]]:
    """Yield the ends of the console logs that are written right now."""
    now = time.time()
    for root in _places_of(item):
        for log in root.glob("**/console.log"):
            if now - log.stat().st_mtime < FRESH_SECONDS:
                lines = log.read_text("utf-8", "replace").splitlines()[-KEPT_LINES:]
                yield f"end of {log.parent.name}'s console", "\n".join(map(ascii, lines))


def _places_of(item: pytest.Item) -> list[pathlib.Path]:
    """Where the test's machines may have been: its own directory and the store it used."""
    arguments = getattr(item, "funcargs", {})
    store = arguments.get("shared_home")
    machines = store and store / "machines"
    places = [arguments.get("tmp_path"), os.environ.get("VMCTL_HOME"), machines]
    return [path for path in map(pathlib.Path, filter(None, places)) if path.is_dir()]
