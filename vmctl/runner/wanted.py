"""Which machine a run wants: a spec or an image, and what the command line lays over it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping

from vmctl import errors
from vmctl.images import catalog
from vmctl.lifecycle import directories, steps, targets, workspace
from vmctl.lifecycle.schedule import Worker
from vmctl.lifecycle.steps import Site
from vmctl.lifecycle.workspace import Workspace
from vmctl.machine import resolve
from vmctl.machine.model import Display, Machine, Mode
from vmctl.spec import load
from vmctl.spec.load import Document
from vmctl.spec.problems import Problem, SpecError

PROJECT = "run"
"""The project of machines that are made from an image alone."""

MODES = ("auto", *(mode.value for mode in Mode))
"""What can be asked for as the mode: those of a spec, and the fourth cell of the table."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A spec's path, or an image's name; `sets` are laid over it as `--set` of `up`.

    `typed` has, for keys of `sets` that came otherwise than by `--set`, what the person typed.
    """

    what: str
    sets: tuple[str, ...] = ()
    allow_outside: bool = False
    typed: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Have problems of the block name what was typed, not the setting that was made of it."""
        try:
            yield
        except SpecError as refused:
            named = [_named(problem, self.typed) for problem in refused.problems]
            raise SpecError(named, unseen=refused.unseen) from refused

    def document(self, site: Site) -> Document:
        """Return the spec of one machine.

        Raises NotFoundError, SpecError, and UsageError for a spec of several machines.
        """
        if targets.is_file(self.what):
            document = load.load(self.what, self.sets, allow_outside=self.allow_outside)
            if len(document.machines) != 1:
                raise errors.UsageError(
                    f"The spec '{self.what}' describes {len(document.machines)} machines; "
                    "a run has one.",
                    hint="Give run a spec of one machine, without vms: and count:",
                )
            return document
        catalog.find(site.layout, self.what)
        text = f"project: {PROJECT}\nname: {PROJECT}\nimage: {{name: {json.dumps(self.what)}}}\n"
        return load.parse(text.encode(), f"image '{self.what}'", self.sets)


def sets(values: Mapping[str, str | int | bool | None]) -> list[str]:
    """Return options of the command line as settings of a spec; those not given are left out."""
    found = []
    for key, value in values.items():
        if value is None or value is False or value == "":
            continue
        if key == "mode" and value == Mode.TCG_VIRTIO:
            found += ["mode=auto", "accel=tcg", "devices=virtio"]
        else:
            found.append(f"{key}={'true' if value is True else value}")
    return found


def typed(values: Mapping[str, str | int | bool | None], form: str) -> dict[str, str]:
    """Return for each key that `sets` makes of options what was typed: `form` with the option."""
    return {
        setting.partition("=")[0]: form.format(key)
        for key, value in values.items()
        for setting in sets({key: value})
    }


def _named(problem: Problem, typed: Mapping[str, str]) -> Problem:
    for key, words in typed.items():
        if problem.file == f"--set '{key}=…'":
            # The setting's text is not what was typed, so that there is nothing to underline.
            return dataclasses.replace(problem, file=words, length=0)
    return problem


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """A machine that can be started, and the text of its spec."""

    machine: Machine
    text: bytes


def find(wanted: Wanted, site: Site, name: str, worker: Worker) -> Found:
    """Return the machine under a name of its own; an image that is absent is made first.

    Raises what `lifecycle.workspace` raises: nothing was begun then.
    """
    document = wanted.document(site)
    around = workspace.surroundings(site.layout, site.connection.uri, create_store=True)
    image = document.machines[0].image
    if image is not None and not workspace.image(site.layout, image).present:
        pulled = bool(image.url) or steps.is_pulled(image.name)
        with worker.step("pull image" if pulled else "make image", patient=True) as progress:
            steps.build_image(site, image, _told(worker, progress))
        around = dataclasses.replace(around, images=lambda one: workspace.image(site.layout, one))
    machines = resolve.resolve(document.as_one(name), around)
    space = Workspace(document, machines, site.layout, site.connection.uri)
    # A run's machine is nobody's to come back to: there is no screen, and no disk is kept.
    machine = dataclasses.replace(
        machines[0],
        display=Display.NONE,
        autostart=False,
        disks=tuple(dataclasses.replace(disk, keep=False) for disk in machines[0].disks),
    )
    workspace.require_surroundings(dataclasses.replace(space, document=document.as_one(name)))
    steps.refuse_taken_ports(machine)
    directories.require(machine, site.connection.uri)
    _require_way_in(machine, wanted.what)
    return Found(machine, document.text)


def _told(worker: Worker, progress: Callable[..., None]) -> Callable[..., None]:
    def told(*words: object) -> None:
        if worker.cancelled:
            raise errors.InterruptError("Interrupted.")
        progress(*words)

    return told


def _require_way_in(machine: Machine, what: str) -> None:
    """Raise UsageError for a machine in which no command could be run."""
    if not machine.nics:
        raise errors.UsageError(
            f"The machine of '{what}' has no network (networks: []), and a run goes over ssh.",
            hint="Add '- {kind: user}' to its networks.",
        )
    if not machine.user:
        raise errors.UsageError(
            f"Nothing says that the guest of '{what}' lets vmctl in over ssh.",
            hint="Use an image with cloud-init (vmctl image list), or say who logs in: "
            "--set user=NAME",
        )
