"""GitLab Runner's custom executor: its stages, its environment, what it calls a failure.

Source of the rules: GitLab Runner's documentation, "The Custom executor". Variables that begin with
CUSTOM_ENV_ are the job's and may say anything; what the runner itself vouches for is in the file
that JOB_RESPONSE_FILE names.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

from vmctl import __version__, errors
from vmctl.guest import script as scripts
from vmctl.guest.remote import Streams
from vmctl.lifecycle.events import Event
from vmctl.runner import job as runner_job
from vmctl.runner.ci import executor
from vmctl.runner.ci.executor import Order
from vmctl.runner.ci.offer import NotOfferedError, Offer, Sizes
from vmctl.store import files
from vmctl.store.layout import Layout

PROJECT = "gitlab"
BUILDS_DIR = "/builds"
CACHE_DIR = "/cache"

_BUILDS_VARIABLE = "VMCTL_GITLAB_BUILDS_DIR"
_CACHE_VARIABLE = "VMCTL_GITLAB_CACHE_DIR"
_SHELL_VARIABLE = "VMCTL_GITLAB_SHELL"
_SHELLS = ("bash", "sh", "dash", "ash")
_LARGEST_RESPONSE = 16 << 20
_LARGEST_SCRIPT = 64 << 20
_PREPARE_SECONDS = 120.0

_PREPARATION = """
shell=$1; shift
command -v "$shell" > /dev/null || exit 41
for place do
    mkdir -p "$place" 2> /dev/null && [ -w "$place" ] && continue
    sudo -n mkdir -p "$place" && sudo -n chown "$(id -u):$(id -g)" "$place" || exit 42
done
"""
_NO_SHELL, _NO_DIRECTORY = 41, 42

_PROGRAM = 'vmctl_script=$(cat); exec < /dev/null; eval "$vmctl_script"'
"""Runs what comes through standard input. It is read to its end before it begins, so that nothing
in it can eat the rest, and it lies in no file of the guest: it holds the job's secrets."""


class BuildError(errors.UsageError):
    """The job itself is at fault: trying again does not help."""


@dataclasses.dataclass(frozen=True, slots=True)
class Codes:
    """The statuses by which the runner tells whose fault it was; None outside of a runner."""

    build: int | None
    system: int | None

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Codes:
        """Read them from the environment; they may change with every release of the runner."""
        return cls(
            _status(env.get("BUILD_FAILURE_EXIT_CODE")),
            _status(env.get("SYSTEM_FAILURE_EXIT_CODE")),
        )

    def status(self, problem: errors.VmctlError) -> int:
        """Return the status to end with after a failure."""
        own = isinstance(problem, BuildError | NotOfferedError)
        chosen = self.build if own else self.system
        return problem.exit_code if chosen is None else chosen


def _status(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 3 else None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the runner vouches for of a job."""

    number: int
    server: str
    project: int
    image: str

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Job:
        """Read it from the file that the runner made; raises UsageError where there is none."""
        path = env.get("JOB_RESPONSE_FILE", "")
        if not path:
            raise errors.UsageError(
                "The environment has no JOB_RESPONSE_FILE, which names the job beyond doubt.",
                hint="GitLab Runner sets it: this is a command for its config.toml, see "
                "docs/ci/gitlab.md",
            )
        data = _response(pathlib.Path(path))
        try:
            number, project = int(data["id"]), int(data["job_info"]["project_id"])
            repository = str((data.get("git_info") or {}).get("repo_url", ""))
            image = str((data.get("image") or {}).get("name", ""))
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise errors.UsageError(
                f"JOB_RESPONSE_FILE '{path}' does not describe a job: {problem!r}."
            ) from None
        if "$" in image:
            # The runner expands it for the job's variable only; who asks gets what is offered.
            image = env.get("CUSTOM_ENV_CI_JOB_IMAGE", "")
        return cls(number=number, server=_host(repository), project=project, image=image)

    @property
    def key(self) -> str:
        """What the job's machine is found by: the same in each stage, and no other job's."""
        return executor.key(f"gitlab-{self.number}", self.server, str(self.number))

    @property
    def tag(self) -> dict[str, str]:
        """What is kept beside the machine."""
        return {"server": self.server, "job": str(self.number), "repository": str(self.project)}


def _response(path: pathlib.Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            text = stream.read(_LARGEST_RESPONSE + 1)
        data = json.loads(text) if len(text) <= _LARGEST_RESPONSE else None
    except (OSError, ValueError) as problem:
        raise errors.UsageError(f"JOB_RESPONSE_FILE '{path}' cannot be read: {problem}.") from None
    if not isinstance(data, dict):
        raise errors.UsageError(f"JOB_RESPONSE_FILE '{path}' does not describe a job.")
    return data


def _host(url: str) -> str:
    try:
        return urllib.parse.urlsplit(url).hostname or ""
    except ValueError:
        return ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the operator wrote into config.toml; `uri` is the libvirt connection."""

    offer: Offer
    sizes: Sizes = dataclasses.field(default_factory=Sizes)
    allow_tcg: bool = False
    uri: str | None = None


def config(
    env: Mapping[str, str], *, builds_dir: str, cache_dir: str, shell: str
) -> dict[str, Any]:
    """Return what `config_exec` prints; `job_env` reaches the later stages, not the job."""
    found: dict[str, Any] = {
        "driver": {"name": "vmctl", "version": __version__},
        "builds_dir": builds_dir,
        "cache_dir": cache_dir,
        "builds_dir_is_shared": False,
        "job_env": {_BUILDS_VARIABLE: builds_dir, _CACHE_VARIABLE: cache_dir},
    }
    if shell:
        found["shell"] = shell
        found["job_env"][_SHELL_VARIABLE] = shell
    if env.get("JOB_RESPONSE_FILE"):
        found["hostname"] = Job.of(env).key
    return found


def prepare(env: Mapping[str, str], terms: Terms) -> Iterator[Event]:
    """Make the job's machine, and see to what the runner's scripts need in it.

    The runner calls it up to three times for one job: each begins anew.
    """
    job = Job.of(env)
    order = Order(
        key=job.key,
        stem=PROJECT,
        project=PROJECT,
        choice=terms.offer.choose(job.image),
        sizes=terms.sizes,
        tag=job.tag,
        allow_tcg=terms.allow_tcg,
        uri=terms.uri,
    )
    layout = Layout.default()
    yield from executor.make(order, layout)
    shell = _shell(env)
    places = [env.get(_BUILDS_VARIABLE, BUILDS_DIR), env.get(_CACHE_VARIABLE, CACHE_DIR)]
    said = bytearray()
    streams = Streams(stdin=None, stdout=said.extend, stderr=said.extend)
    check = runner_job.Job(
        argv=executor.words(_PREPARATION, shell, *places), timeout=_PREPARE_SECONDS
    )
    status = executor.run(job.key, check, streams, layout, terms.uri)
    if status == _NO_SHELL:
        raise BuildError(
            f"The guest has no '{shell}', in which the runner writes its scripts.",
            hint="Take an image that has it, or let the runner write for another one: "
            "vmctl gitlab config --shell sh",
        )
    if status != 0:
        raise errors.GuestError(
            f"The guest's user cannot write to {' and '.join(places)}.",
            details=said.decode("utf-8", "replace"),
        )


def _shell(env: Mapping[str, str]) -> str:
    return env.get(_SHELL_VARIABLE, "bash")


def run(env: Mapping[str, str], path: pathlib.Path, terms: Terms, streams: Streams) -> int:
    """Run one of the runner's scripts in the job's machine; return the status to end with.

    The script's own status goes to the file that BUILD_EXIT_CODE_FILE names. Raises what
    `executor.run` raises where it is not the script that failed.
    """
    job = Job.of(env)
    with _opened(path) as stream:
        content = stream.read(_LARGEST_SCRIPT)
        shell = _interpreter(content, env)
        stream.seek(0)
        command = runner_job.Job(argv=(shell, "-c", _PROGRAM))
        within = dataclasses.replace(streams, stdin=stream.fileno())
        status = executor.run(job.key, command, within, Layout.default(), terms.uri)
    if status == 0:
        return 0
    place = env.get("BUILD_EXIT_CODE_FILE", "")
    if place:
        files.write(pathlib.Path(place), f"{status}\n".encode())
    build = Codes.of(env).build
    return status if build is None else build


def _opened(path: pathlib.Path) -> Any:
    try:
        return path.open("rb")
    except OSError as problem:
        raise errors.NotFoundError(
            f"The runner's script '{path}' cannot be read: {problem.strerror}."
        ) from None


def _interpreter(content: bytes, env: Mapping[str, str]) -> str:
    """Return the shell that a script was written for: its first line says so, else the config."""
    if not content.startswith(b"#!"):
        return _shell(env)
    name = os.path.basename(scripts.interpreter(content)[-1].split()[0])
    if name not in _SHELLS:
        raise errors.UsageError(
            f"The runner wrote a script for '{re.sub(r'[^ -~]', '?', name)}', not for a shell.",
            hint='Have it write for another one: shell = "bash" in config.toml',
        )
    return name


def sweep(older_than: float, uri: str | None) -> Iterator[Event]:
    """Remove machines whose jobs began longer ago than a job may last (seconds).

    Nobody else does where the runner was killed or the host lost its power.
    """
    layout = Layout.default()
    for key, tag in executor.tags(layout, PROJECT).items():
        made = tag.get("made")
        if not isinstance(made, int) or made + older_than < time.time():
            yield from executor.remove(key, PROJECT, layout, uri=uri)


def cleanup(env: Mapping[str, str], terms: Terms) -> Iterator[Event]:
    """Remove the job's machine; fine where there is none."""
    yield from executor.remove(Job.of(env).key, PROJECT, Layout.default(), uri=terms.uri)
