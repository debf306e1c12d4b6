"""What GitLab Runner says of a job, and what of it is believed."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from vmctl import errors
from vmctl.runner.ci import gitlab
from vmctl.runner.ci.gitlab import BuildError, Codes, Job
from vmctl.runner.ci.offer import NotOfferedError

REPOSITORY = "https://gitlab-ci-token:secret@gitlab.test:8443/a/b.git"


def job(place: pathlib.Path, env: dict[str, str] | None = None, **more: Any) -> Job:
    data = {
        "id": 5,
        "job_info": {"project_id": 7},
        "git_info": {"repo_url": REPOSITORY},
        "image": {"name": "tiny"},
        **more,
    }
    path = place / "response.json"
    path.write_text(json.dumps(data))
    return Job.of({**(env or {}), "JOB_RESPONSE_FILE": str(path)})


def test_a_job_is_what_the_runner_says_and_not_what_the_job_says(tmp_path: pathlib.Path) -> None:
    lies = {"CUSTOM_ENV_CI_JOB_ID": "6", "CUSTOM_ENV_CI_JOB_IMAGE": "debian-12"}
    found = job(tmp_path, lies)
    assert (found.number, found.server, found.image) == (5, "gitlab.test", "tiny")
    assert "secret" not in json.dumps(found.tag) + found.key


def test_an_image_with_variables_comes_expanded_from_the_runner(tmp_path: pathlib.Path) -> None:
    env = {"CUSTOM_ENV_CI_JOB_IMAGE": "debian-12"}
    assert job(tmp_path, env, image={"name": "$DISTRO"}).image == "debian-12"
    assert job(tmp_path, image=None).image == ""
    assert job(tmp_path, image={}).image == ""


def test_machines_are_told_apart_by_job_and_server(tmp_path: pathlib.Path) -> None:
    other = {"git_info": {"repo_url": "https://other.test/a/b.git"}}
    names = [
        job(tmp_path).key,
        job(tmp_path, id=6).key,
        job(tmp_path, **other).key,
        job(tmp_path, git_info=None).key,
    ]
    assert len(set(names)) == 4
    assert names[0] == job(tmp_path).key
    assert all(len(name) <= 63 and name.startswith("gitlab-") for name in names)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"id": "x", "job_info": {"project_id": 1}}', '{"id": 1}', "\xff"]
)
def test_what_is_no_response(text: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "response.json"
    path.write_text(text)
    with pytest.raises(errors.UsageError, match="JOB_RESPONSE_FILE"):
        Job.of({"JOB_RESPONSE_FILE": str(path)})


def test_whose_fault_it_was() -> None:
    codes = Codes.of({"BUILD_FAILURE_EXIT_CODE": "11", "SYSTEM_FAILURE_EXIT_CODE": "12"})
    assert codes.status(BuildError("x")) == 11
    assert codes.status(NotOfferedError("x")) == 11
    assert codes.status(errors.GuestError("x")) == 12
    assert codes.status(errors.UsageError("x")) == 12


def test_outside_of_a_runner_a_failure_has_its_own_status() -> None:
    for env in ({}, {"SYSTEM_FAILURE_EXIT_CODE": "many"}, {"SYSTEM_FAILURE_EXIT_CODE": ""}):
        assert Codes.of(env).status(errors.GuestError("x")) == 8


def test_the_config_hands_its_settings_to_the_later_stages() -> None:
    found = gitlab.config({}, builds_dir="/b", cache_dir="/c", shell="")
    assert found["builds_dir"] == "/b"
    assert found["job_env"] == {"VMCTL_GITLAB_BUILDS_DIR": "/b", "VMCTL_GITLAB_CACHE_DIR": "/c"}
    assert "shell" not in found
    assert "hostname" not in found
    assert gitlab.config({}, builds_dir="/b", cache_dir="/c", shell="sh")["shell"] == "sh"
