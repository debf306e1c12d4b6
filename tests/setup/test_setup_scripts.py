"""`./up`, `./check` and what belongs to them, run for real in namespaces where that is needed."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence

import pytest

TOP = pathlib.Path(__file__).parents[2]
SHELLS = (["dash"], ["busybox", "sh"], ["bash", "--posix"])
SCRIPTS = ("up", "check")
TABLE = TOP / "setup" / "packages.txt"
HIDE_QEMU = "mount --bind /dev/null /usr/bin/qemu-system-x86_64"
FULL_SETUP_SECONDS = 900
GEMS = pathlib.Path("/usr/share")
VAGRANT_LIBVIRT = [
    *GEMS.glob("rubygems-integration/*/gems/vagrant-libvirt-*"),
    *GEMS.glob("gems/gems/vagrant-libvirt-*"),
]


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    seconds: float = 60,
    cwd: pathlib.Path = TOP,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program with the environment as it is plus `environment`."""
    return subprocess.run(
        argv,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def run_where(preparation: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command in a mount namespace of its own, after `preparation` changed the host."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount over the host's own files")
    if run(["unshare", "--mount", "true"]).returncode:
        pytest.skip("new namespaces are not allowed here")
    script = f"{preparation} || exit 99; {command}"
    done = run(["unshare", "--mount", "sh", "-c", script])
    assert done.returncode != 99, done.stderr
    return done


def as_distribution(directory: pathlib.Path, text: str) -> str:
    """Return the command that makes this host another distribution without QEMU."""
    release = directory / "os-release"
    release.write_text(text, encoding="utf-8")
    return f"mount --bind '{release}' /etc/os-release && {HIDE_QEMU}"


def rows() -> list[list[str]]:
    """The lines of the package table, split into their seven columns."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    return [line.split(maxsplit=6) for line in lines if line and not line.startswith("#")]


class TestCommandLine:
    @pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
    @pytest.mark.parametrize("script", SCRIPTS)
    def test_help_is_shown_by_every_shell(self, shell: list[str], script: str) -> None:
        done = run([*shell, TOP / script, "--help"])
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"Usage: ./{script}")

    @pytest.mark.parametrize("script", SCRIPTS)
    def test_an_unknown_option_is_named(self, script: str) -> None:
        done = run([TOP / script, "--instal"])
        assert (done.returncode, done.stdout) == (2, "")
        assert "'--instal'" in done.stderr

    def test_a_spec_that_is_not_there_stops_at_once(self, tmp_path: pathlib.Path) -> None:
        done = run([TOP / "up", "web.yaml"], cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"'{tmp_path}/web.yaml'" in done.stderr

    def test_two_specs_are_too_many(self) -> None:
        done = run([TOP / "up", "README.md", "LICENSE"])
        assert done.returncode == 2
        assert "'README.md' and 'LICENSE'" in done.stderr


class TestPackages:
    def test_the_table_is_complete(self) -> None:
        for row in rows():
            assert len(row) == 7, row
            assert row[0] in {"run", "check", "extra"}
            assert row[2] != "-" or row[0] == "extra", "Debian has everything else"

    @pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
    def test_what_is_missing_is_listed_with_its_purpose(self, shell: list[str]) -> None:
        words = " ".join(shell)
        done = run_where(HIDE_QEMU, f"{words} ./check --setup --no-install")
        assert done.returncode == 5
        assert re.search(r"^ +qemu-system-x86 +runs the guests$", done.stdout, re.MULTILINE)
        assert "apt-get install --no-install-recommends qemu-system-x86" in done.stderr
        assert "qemu-utils" not in done.stdout + done.stderr, "that one is there"

    @pytest.mark.parametrize(
        ("text", "command"),
        [
            ("ID=fedora\n", "dnf install qemu-system-x86"),
            ("ID=rocky\nID_LIKE='rhel centos fedora'\n", "dnf install qemu-system-x86"),
            ("ID=arch\n", "pacman -S --needed qemu-system-x86"),
            ("ID=manjaro\nID_LIKE=arch\n", "pacman -S --needed qemu-system-x86"),
            ("ID=opensuse-leap\nID_LIKE='suse opensuse'\n", "zypper install qemu-x86"),
        ],
    )
    def test_other_distributions_hear_their_own_names(
        self, tmp_path: pathlib.Path, text: str, command: str
    ) -> None:
        done = run_where(as_distribution(tmp_path, text), "./up --setup")
        assert done.returncode == 5
        assert command in done.stderr
        assert "Please install these yourself" in done.stderr

    def test_an_unknown_distribution_hears_what_is_missing(self, tmp_path: pathlib.Path) -> None:
        text = "ID=plan9\nPRETTY_NAME='Plan 9'\n"
        done = run_where(as_distribution(tmp_path, text), "./up --setup")
        assert done.returncode == 5
        assert "Missing on Plan 9" in done.stdout
        assert "(qemu-system-x86_64)" in done.stdout

    def test_without_a_network_apt_gives_up(self, tmp_path: pathlib.Path) -> None:
        table = tmp_path / "packages.txt"
        table.write_text("run no-such-program no-such-package - - - is only a test\n", "utf-8")
        hidden = "mount -t tmpfs tmpfs /var/lib/apt/lists && mount -t tmpfs tmpfs /var/cache/apt"
        preparation = f"{hidden} && mount --bind '{table}' '{TABLE}'"
        done = run_where(preparation, "unshare --net ./up --setup")
        assert done.returncode == 5
        assert "Unable to locate package no-such-package" in done.stderr
        assert "no network" in done.stderr

    def test_another_architecture_is_refused(self) -> None:
        done = run(["setarch", "i686", TOP / "up", "--setup"])
        assert done.returncode == 5
        assert "x86-64" in done.stderr
        assert "i686" in done.stderr


class TestVirtualenv:
    def test_a_directory_of_something_else_is_left_alone(self, tmp_path: pathlib.Path) -> None:
        tmp_path.joinpath("letter.txt").write_text("mine", encoding="utf-8")
        done = run([TOP / "up", "--setup"], environment={"VMCTL_VENV": str(tmp_path)})
        assert done.returncode == 2
        assert "is no virtualenv" in done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]

    def test_no_install_makes_no_virtualenv(self, tmp_path: pathlib.Path) -> None:
        venv = tmp_path / "venv"
        done = run([TOP / "up", "--setup", "--no-install"], environment={"VMCTL_VENV": str(venv)})
        assert done.returncode == 5
        assert f"'{venv}' is not ready" in done.stderr
        assert not venv.exists()

    def test_without_an_index_pip_gives_up(self, tmp_path: pathlib.Path) -> None:
        venv = str(tmp_path / "venv")
        environment = {"VMCTL_VENV": venv, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
        done = run([TOP / "up", "--setup"], environment=environment)
        assert done.returncode == 5
        assert "the package index cannot be reached" in done.stderr
        assert not pathlib.Path(venv, ".vmctl-ready").exists()

    @pytest.mark.long
    @pytest.mark.timeout(2 * FULL_SETUP_SECONDS)
    def test_two_at_once_make_one_and_the_next_is_quick(self, tmp_path: pathlib.Path) -> None:
        venv = tmp_path / "a place" / "venv"
        commands = ([str(TOP / "up"), "--setup"], [str(TOP / "check"), "--setup"])

        def set_up(argv: list[str]) -> subprocess.CompletedProcess[str]:
            return run(argv, seconds=FULL_SETUP_SECONDS, environment={"VMCTL_VENV": str(venv)})

        with concurrent.futures.ThreadPoolExecutor() as pool:
            done = list(pool.map(set_up, commands))
        assert [one.returncode for one in done] == [0, 0], [one.stderr for one in done]
        assert sum("Waiting for another" in one.stdout for one in done) <= 1
        assert run([venv / "bin" / "vmctl", "--help"], cwd=tmp_path).returncode == 0

        for argv in commands:
            set_up(argv)
            began = time.monotonic()
            again = run([*argv, "--no-install"], environment={"VMCTL_VENV": str(venv)})
            assert again.returncode == 0
            assert "is up to date" in again.stdout
            assert time.monotonic() - began < 10


class TestFiles:
    def test_make_without_a_target_lists_them_all(self) -> None:
        done = run(["make", "--no-print-directory"])
        assert done.returncode == 0
        targets = re.search(r"^\.PHONY: (.*)$", (TOP / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert targets
        for target in targets[1].split():
            assert f"make {target}" in done.stdout

    def test_the_vagrantfile_is_valid(self, tmp_path: pathlib.Path) -> None:
        vagrant = shutil.which("vagrant")
        if vagrant is None or not VAGRANT_LIBVIRT:
            pytest.skip("this distribution has no vagrant with its libvirt provider")
        # With the provider named, its options are validated too.
        done = run(
            [vagrant, "validate"],
            environment={
                "VAGRANT_DEFAULT_PROVIDER": "libvirt",
                "VAGRANT_HOME": str(tmp_path / "home"),
                "VAGRANT_DOTFILE_PATH": str(tmp_path / "state"),
            },
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "validated successfully" in done.stdout
