"""The rules of `tests/plugins`, tried on a small suite of their own."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import textwrap

import pytest

TOP = pathlib.Path(__file__).parents[2]

CONFTEST = """
import pathlib
from tests.plugins import artifacts, isolation
isolation.UNIT_TESTS = pathlib.Path(__file__).parent / "unit"
artifacts.ARTIFACTS = pathlib.Path(__file__).parent / "artifacts"
pytest_plugins = ("tests.plugins.artifacts", "tests.plugins.isolation", "tests.plugins.skip_policy")

def pytest_configure(config):
    for name in ("vm", "allow_process"):
        config.addinivalue_line("markers", name)
"""

TRESPASSES = {
    "a process": "import subprocess; subprocess.run(['true'])",
    "a process that need not exist": "from vmctl import process; process.run(['no-such'], None)",
    "a shell": "import os; os.system('true')",
    "a fork": "import os; os.fork() or os._exit(0)",
    "a connection": "import socket; socket.socket().connect(('127.0.0.1', 9))",
    "libvirt": "import libvirt; libvirt.open('test:///default')",
}


def run_suite(place: pathlib.Path, file: str, text: str) -> subprocess.CompletedProcess[str]:
    """Run one test file under the plugins, away from this project's own settings."""
    place.joinpath("conftest.py").write_text(CONFTEST, encoding="utf-8")
    path = place / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"import pytest\n{textwrap.dedent(text)}", encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-c", "/dev/null", "--rootdir", place, path, "-q"],
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", TRESPASSES)
def test_a_unit_test_is_stopped_at(tmp_path: pathlib.Path, name: str) -> None:
    text = f"def test_it():\n    try: {TRESPASSES[name]}\n    except Exception: pass\n"
    assert "ForbiddenInUnitTestError" in run_suite(tmp_path, "unit/test_it.py", text).stdout


def test_a_marker_and_another_directory_allow_processes(tmp_path: pathlib.Path) -> None:
    body = f"def test_it():\n    {TRESPASSES['a process']}\n"
    assert run_suite(tmp_path, "vm/test_it.py", body).returncode == 0
    marked = f"@pytest.mark.allow_process\n{body}"
    assert run_suite(tmp_path, "unit/test_it.py", marked).returncode == 0


@pytest.mark.parametrize(
    "text",
    [
        "def test_it(): pytest.skip('no time')",
        "@pytest.mark.skip(reason='no time')\ndef test_it(): pass",
        "pytest.skip('no time', allow_module_level=True)",
        "pytest.importorskip('no_such_module', reason='no time')\ndef test_it(): pass",
    ],
)
def test_an_unforeseen_skip_fails_the_run(tmp_path: pathlib.Path, text: str) -> None:
    done = run_suite(tmp_path, "test_it.py", f"{text}\ndef test_other(): pass\n")
    assert done.returncode == 1
    assert "no time" in done.stdout.partition("allowed-skips.txt does not allow")[2]


def test_a_foreseen_skip_passes(tmp_path: pathlib.Path) -> None:
    text = "def test_it(): pytest.skip('new namespaces are not allowed here')"
    assert run_suite(tmp_path, "test_it.py", text).returncode == 0


def test_a_failed_guest_test_leaves_its_logs(tmp_path: pathlib.Path) -> None:
    text = """
    @pytest.mark.vm
    def test_it(tmp_path, artifacts):
        tmp_path.joinpath("web").mkdir()
        tmp_path.joinpath("web", "console.log").write_text("Kernel panic")
        artifacts.joinpath("own.txt").write_text("kept")
        assert False

    def test_passes(artifacts):
        artifacts.joinpath("own.txt").write_text("not kept")
    """
    assert run_suite(tmp_path, "test_it.py", text).returncode == 1
    kept = {
        str(path.relative_to(tmp_path / "artifacts")) for path in tmp_path.rglob("artifacts/*/*")
    }
    assert kept == {
        "test_it.py-test_it/own.txt",
        "test_it.py-test_it/report.txt",
        "test_it.py-test_it/web-console.log",
    }
