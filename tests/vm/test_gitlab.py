"""The custom executor, driven as GitLab Runner drives it: environment, retries, kills."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.vm.conftest import PATIENCE, Result, Site

pytestmark = pytest.mark.vm

BUILD, SYSTEM = 71, 72
"""Not the runner's own numbers: nobody may take those for granted."""

SECRET = "glpat-marker-8d1f"
TERMS = ("--image", "tiny", "--allow-tcg", "--memory", "128MiB")


class Runner:
    """Calls a job's stages with the environment that GitLab Runner gives them."""

    _numbers = itertools.count(int(time.time()) % 1_000_000 * 1000)

    def __init__(self, site: Site, place: pathlib.Path, image: str = "") -> None:
        self.site = site
        self.place = place
        self.number = next(self._numbers)
        self.code_file = place / "build_exit_code"
        response = place / "response.json"
        repository = f"https://gitlab-ci-token:{SECRET}@gitlab.test/group/project.git"
        job = {
            "id": self.number,
            "token": SECRET,
            "job_info": {"name": "build", "stage": "test", "project_id": 7},
            "git_info": {"repo_url": repository},
            "image": {"name": image},
            "variables": [{"key": "CI_JOB_ID", "value": "1", "public": True}],
        }
        response.write_text(json.dumps(job))
        self.env = {
            **site.env,
            "TMPDIR": str(place),
            "JOB_RESPONSE_FILE": str(response),
            "BUILD_FAILURE_EXIT_CODE": str(BUILD),
            "SYSTEM_FAILURE_EXIT_CODE": str(SYSTEM),
            "BUILD_EXIT_CODE_FILE": str(self.code_file),
            # What the job says of itself, and may say wrong.
            "CUSTOM_ENV_CI_JOB_ID": "1",
            "CUSTOM_ENV_CI_JOB_IMAGE": "/etc/passwd",
            "CUSTOM_ENV_CI_JOB_TOKEN": SECRET,
        }
        config = json.loads(self.stage("config", "--shell", "sh", status=0).out)
        self.key = config["hostname"]
        self.env |= config["job_env"]

    @property
    def machine(self) -> str:
        """The job's machine, or nothing."""
        path = self.site.home / "executors" / f"{self.key}.json"
        return json.loads(path.read_text()).get("machine", "") if path.exists() else ""

    def start(self, stage: str, *words: str) -> subprocess.Popen[str]:
        """Start a stage as the leader of a process group."""
        return subprocess.Popen(
            self.site.command("gitlab", stage, *words),
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def stage(self, stage: str, *words: str, status: int) -> Result:
        with self.start(stage, *words) as child:
            out, err = child.communicate(timeout=PATIENCE * 2)
        assert "Traceback" not in err
        assert child.returncode == status, (stage, child.returncode, out, err)
        return Result(child.returncode, out, err)

    def script(self, text: str) -> str:
        """Write a script as the runner does."""
        path = self.place / f"script{next(self._numbers)}"
        path.write_text(f"#!/usr/bin/env sh\n\n{text}\n")
        return str(path)

    def run(self, text: str, *, status: int = 0, stage: str = "step_script") -> Result:
        self.code_file.unlink(missing_ok=True)
        return self.stage("run", self.script(text), stage, status=status)


@pytest.fixture(scope="module")
def runner(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """A job whose first attempt at `prepare` was killed, and whose second one was not."""
    runner = Runner(site, tmp_path_factory.mktemp("job"))
    with runner.start("prepare", *TERMS) as child:
        until(lambda: runner.machine)
        machine = site.home / "machines" / runner.machine / "machine.json"
        site.claim(runner.machine)
        until(machine.exists)
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
    runner.stage("prepare", *TERMS, status=0)
    assert runner.machine == machine.parent.name
    yield runner
    runner.stage("cleanup", status=0)


def site_machine(runner: Runner) -> pathlib.Path:
    found = runner.site.home / "machines" / runner.machine
    assert found.exists()
    return found


def until(there: Callable[[], Any]) -> Any:
    """Wait until something is there, and return it."""
    end = time.monotonic() + PATIENCE
    while not (found := there()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def test_output_is_passed_on_and_streams_stay_apart(runner: Runner) -> None:
    said = runner.run("echo äöü; printf 'no newline'; echo oops >&2; uname -n")
    assert said.out == f"äöü\nno newline{runner.machine}\n"
    assert said.err == "oops\n"
    assert not runner.code_file.exists()


def test_the_status_of_a_script_is_a_build_failure(runner: Runner) -> None:
    runner.run("set -eu\n: | eval 'echo before; exit 42'\nexit $?", status=BUILD)
    assert runner.code_file.read_text() == "42\n"


def test_a_script_cannot_look_like_a_failure_of_the_system(runner: Runner) -> None:
    for number in (125, 255, SYSTEM):
        runner.run(f"exit {number}", status=BUILD)
        assert runner.code_file.read_text() == f"{number}\n"
    runner.run("kill -9 $$", status=BUILD)
    assert runner.code_file.read_text() == "137\n"


def test_nothing_in_a_script_eats_the_rest_of_it(runner: Runner) -> None:
    filler = "\n".join(f"x{number}={'y' * 60}" for number in range(4000))
    assert runner.run(f"cat\nread -r line || :\n{filler}\necho end").out == "end\n"


def test_the_directories_of_the_config_are_there(runner: Runner) -> None:
    runner.run("cd /builds && touch a && cd /cache && touch b", stage="get_sources")


def test_secrets_are_in_no_list_of_processes_and_in_no_file_of_the_store(runner: Runner) -> None:
    script = runner.script(f"token={SECRET}; echo runs; sleep 600")
    with runner.start("run", script, "step_script") as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "runs\n"
        for words in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                assert SECRET.encode() not in words.read_bytes()
        os.killpg(child.pid, signal.SIGTERM)
        _, said = child.communicate(timeout=PATIENCE)
    assert (child.returncode, said) == (SYSTEM, "Interrupted.\n")
    # What the job had started ended with it, and the machine is there for after_script.
    assert runner.run("ps | grep -c '[s]leep 600' || :", stage="after_script").out == "0\n"
    for path in runner.site.home.rglob("*"):
        if path.is_file() and "images" not in path.parts and path.stat().st_size < 1 << 22:
            assert SECRET.encode() not in path.read_bytes(), path


def test_a_stage_that_was_killed_leaves_a_machine_for_the_next(runner: Runner) -> None:
    with runner.start("run", runner.script("echo runs; sleep 600"), "step_script") as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "runs\n"
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate(timeout=PATIENCE)
    assert runner.run("echo alive", stage="after_script").out == "alive\n"


def test_another_prepare_begins_anew_and_cleanup_can_be_repeated(runner: Runner) -> None:
    runner.run("touch /root/left-by-the-first-attempt")
    runner.stage("prepare", *TERMS, status=0)
    assert runner.run("ls /root").out == ""
    runner.site.run("gitlab", "sweep", "--older-than", "1h")
    machine = site_machine(runner)
    quiet = runner.stage("cleanup", status=0)
    assert (quiet.out, quiet.err) == ("", "")
    runner.stage("cleanup", status=0)
    assert not machine.exists()
    assert list((runner.site.home / "executors").glob(f"{runner.key}*")) == []
    # Not the job's fault.
    runner.run("true", status=SYSTEM)
    assert not runner.code_file.exists()


def test_whose_fault_it_is(site: Site, tmp_path: pathlib.Path) -> None:
    runner = Runner(site, tmp_path, image="debian-12")
    said = runner.stage("prepare", *TERMS, status=BUILD).err
    assert "The image 'debian-12' is not offered here." in said
    emulated = ("--mode", "full", "--image", "tiny", "--allow-image", "debian-*")
    said = runner.stage("prepare", *emulated, status=SYSTEM).err
    assert "which is no security boundary" in said
    assert "--allow-tcg" in said
    said = runner.stage("prepare", "--no-such-option", status=SYSTEM).err
    assert "No such option" in said
    runner.env["JOB_RESPONSE_FILE"] = str(tmp_path / "none")
    runner.stage("prepare", *TERMS, status=SYSTEM)
    del runner.env["JOB_RESPONSE_FILE"]
    runner.stage("cleanup", status=SYSTEM)
    assert not runner.machine


@pytest.mark.long
def test_a_spec_of_the_operators_and_a_guest_without_the_shell(
    site: Site, tmp_path: pathlib.Path
) -> None:
    specs = tmp_path / "specs"
    specs.mkdir()
    specs.joinpath("big.yaml").write_text("image: tiny\nmemory: 160MiB\ncpus: 2\n")
    specs.joinpath("two.yaml").write_text("image: tiny\ncount: 2\n")
    runner = Runner(site, tmp_path, image="big")
    terms = ("--specs", str(specs), "--allow-tcg")
    runner.stage("prepare", *terms, status=0)
    site.claim(runner.machine)
    assert runner.run("nproc").out == "2\n"
    runner.env["VMCTL_GITLAB_SHELL"] = "bash"
    said = runner.stage("prepare", *terms, status=BUILD).err
    assert "The guest has no 'bash'" in said
    said = runner.run("echo c > /proc/sysrq-trigger; sleep 600", status=SYSTEM).err
    assert "the guest panicked" in said
    site.run("gitlab", "sweep", "--older-than", "1s")
    assert not runner.machine
    two = Runner(site, tmp_path, image="two")
    said = two.stage("prepare", *terms, status=SYSTEM).err
    assert "other machines than one for a job" in said
