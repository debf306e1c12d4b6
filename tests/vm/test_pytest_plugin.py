"""The fixture `vm` in somebody's own tests, in a pytest of their own."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from tests.vm.conftest import PATIENCE, Site

pytestmark = pytest.mark.vm

TOP = pathlib.Path(__file__).parents[2]

USERS = """
import pytest

@pytest.mark.vm_image("tiny", mode="full", memory="160MiB")
def test_it(vm, tmp_path):
    vm.run("echo told $A > /dev/ttyS0", env={"A": "console"})
    result = vm.run("echo out; echo err >&2; exit 3")
    assert (result.status, result.stdout, result.stderr) == (3, "out\\n", "err\\n")
    assert vm.run(["echo", "*"], check=True).stdout == "*\\n"
    (tmp_path / "a").write_text("content")
    vm.copy_in(tmp_path / "a", "/tmp/a")
    vm.copy_out("/tmp/a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "content"
    assert vm.mode == "full"
    assert vm.run("exit 0").status == 4, f"machine={vm.name}"

@pytest.mark.vm_image("tiny", "debian-12-min", mode=["full", "paravirt"])
def test_many(vm):
    pass

def test_default(vm):
    pass

@pytest.mark.vm_image("no-such-image")
def test_wrong(vm):
    pass
"""


class Users:
    """Somebody's directory of tests."""

    def __init__(self, site: Site, place: pathlib.Path) -> None:
        self.site = site
        self.place = place
        place.joinpath("test_users.py").write_text(USERS)
        place.joinpath("pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")

    def pytest(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run their tests; pytest finds the plugin by the entry point of the installed vmctl."""
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", *words],
            cwd=self.place,
            env={**self.site.env, "PYTHONPATH": str(TOP)},
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
            check=False,
        )


@pytest.fixture
def users(site: Site, tmp_path: pathlib.Path) -> Users:
    return Users(site, tmp_path)


def test_a_failed_test_shows_the_console_and_keeps_it(users: Users) -> None:
    done = users.pytest("-k", "test_it or test_wrong", "--vm-artifacts", "kept")
    assert done.returncode == 1, done
    assert "assert 0 == 4" in done.stdout
    assert "console of run-" in done.stdout
    assert "told console" in done.stdout
    kept = users.place / "kept" / "test_users.py-test_it" / "console.log"
    assert "told console" in kept.read_text(errors="replace")
    name = done.stdout.partition("machine=")[2].split()[0]
    assert not (users.site.home / "machines" / name).exists()
    assert "There is no image 'no-such-image'" in done.stdout


def test_once_for_each_image_and_mode(users: Users) -> None:
    done = users.pytest("--collect-only", "-q")
    assert done.returncode == 0, done
    found = [line.rpartition("::")[2] for line in done.stdout.splitlines() if "::" in line]
    many = [
        f"test_many[{image}-{mode}]"
        for image in ("tiny", "debian-12-min")
        for mode in ("full", "paravirt")
    ]
    assert found == ["test_it", *many, "test_default", "test_wrong"]


def test_it_imports_nothing_until_a_test_asks(users: Users) -> None:
    program = (
        "import sys, vmctl.pytest_plugin; print(sorted(m for m in sys.modules if 'vmctl.' in m))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=TOP, capture_output=True, text=True, check=True
    )
    assert done.stdout == "['vmctl.pytest_plugin']\n"
