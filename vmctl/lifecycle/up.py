"""`up`: what the spec says is what runs, and the rest is said."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence

from vmctl import errors
from vmctl.hypervisor import connection as connections
from vmctl.lifecycle import directories, execute, observe, removal, schedule, steps, workspace
from vmctl.lifecycle.events import Event, Note
from vmctl.lifecycle.provision import Provision
from vmctl.lifecycle.schedule import Worker
from vmctl.lifecycle.steps import Site
from vmctl.lifecycle.workspace import Workspace
from vmctl.machine import comparison, plan, resolve
from vmctl.machine.comparison import Comparison
from vmctl.machine.observed import Observed
from vmctl.machine.plan import Action, Plan
from vmctl.spec.model import ImageSpec


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for on the command line."""

    path: pathlib.Path
    uri: str | None = None
    sets: Sequence[str] = ()
    allow_outside: bool = False
    remove_orphans: bool = False
    wait: bool = True
    provision: Provision = Provision.MISSING
    take_over: bool = False


def planned(request: Request) -> Plan:
    """Return what `up` would do; changes nothing."""
    space = _open(request, create_store=False)
    with connections.opened(request.uri, space.layout) as connection:
        return _plan(Site(connection, space.layout), space, request)


def differences(request: Request) -> tuple[tuple[Comparison, ...], tuple[str, ...]]:
    """Return how each machine differs from the spec, and the orphans; changes nothing."""
    space = _open(request, create_store=False)
    with connections.opened(request.uri, space.layout) as connection:
        observed, orphans = _seen(Site(connection, space.layout), space)
    found = (comparison.compare(each, observed[each.name]) for each in space.machines)
    return tuple(found), tuple(orphans)


def run(request: Request) -> Iterator[Event]:
    """Bring a spec's machines up and yield what happens.

    Everything that can be refused is refused before anything is touched; then machines are made
    and started in the order of their needs, several at a time.
    """
    space = _open(request, create_store=True)
    absent = _absent_images(space)
    with connections.opened(request.uri, space.layout) as connection:
        site = Site(connection, space.layout)
        if absent:
            _plan(site, space, request)
            yield from _build(site, absent)
            space = _open(request, create_store=True)
            for name in _absent_images(space):
                raise errors.ConflictError(
                    f"The image '{name}' changed again while 'up' was at work.",
                    hint="Wait until nobody writes to it, then try again.",
                )
        todo = _plan(site, space, request)
        yield from _orphans(site, todo, request)
        yield from _fallbacks(todo)
        text = (os.path.abspath(space.document.path), space.document.text)
        machines = resolve.by_name(space.machines)

        def work(name: str, worker: Worker) -> None:
            execute.bring_up(
                site,
                machines[name],
                text,
                worker,
                wait=request.wait,
                which=request.provision,
                take_over=request.take_over,
            )

        needs = {machine.name: machine.needs for machine in space.machines}
        yield from schedule.carry_out(list(machines), needs, work)


def _open(request: Request, *, create_store: bool) -> Workspace:
    space = workspace.open_spec(
        request.path,
        uri=request.uri,
        sets=request.sets,
        allow_outside=request.allow_outside,
        create_store=create_store,
    )
    workspace.require_surroundings(space)
    return space


def _seen(site: Site, space: Workspace) -> tuple[dict[str, Observed], list[str]]:
    """Return what there is of the spec's machines, and which ones it no longer names."""
    names = {machine.name for machine in space.machines}
    observed = observe.observe_all(site.connection, site.layout, names)
    spec = os.path.abspath(space.document.path)
    return observed, observe.orphans(site.connection, site.layout, spec, names)


def _plan(site: Site, space: Workspace, request: Request) -> Plan:
    observed, orphans = _seen(site, space)
    todo = plan.plan(space.machines, observed, orphans, take_over=request.take_over)
    for item in todo.machines:
        if not item.observed.state.active:
            steps.refuse_taken_ports(item.machine)
            directories.require(item.machine, site.connection.uri)
    return todo


def _absent_images(space: Workspace) -> dict[str, ImageSpec]:
    """Return what the spec says of each image that is not in the store, by what people call it."""
    present = {machine.name: machine.image.present for machine in space.machines if machine.image}
    return {
        _called(spec.image): spec.image
        for spec in space.document.machines
        if spec.image is not None and not present[spec.name]
    }


def _called(image: ImageSpec) -> str:
    return image.name or image.path or f"{image.url} (sha256 {image.sha256[:12]})"


def _build(site: Site, images: dict[str, ImageSpec]) -> Iterator[Event]:
    def work(name: str, worker: Worker) -> None:
        pulled = bool(images[name].url) or steps.is_pulled(images[name].name)
        what = "pull image" if pulled else "build image" if images[name].name else "copy image"
        with worker.step(what, patient=True) as progress:

            def told(*words: object) -> None:
                if worker.cancelled and (pulled or not images[name].name):
                    # A copy may take minutes; what there is of it is removed. A download is kept.
                    raise errors.InterruptError("Interrupted.")
                progress(*words)

            steps.build_image(site, images[name], told)
        if pulled and images[name].name:
            text, hint = steps.remarks(site, images[name].name)
            if text:
                worker.note("warning", text, hint)

    yield from schedule.carry_out(list(images), {}, work)


def _fallbacks(todo: Plan) -> Iterator[Event]:
    """Say loudly, once for each reason, that machines get less than the best mode."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for item in todo.machines:
        if item.machine.fallback and Action.START in item.actions:
            key = (item.machine.why, item.machine.remedy)
            reasons.setdefault(key, []).append(item.machine.name)
    for (why, remedy), names in reasons.items():
        yield Note(machine=", ".join(names), level="warning", text=why, hint=remedy)


def _orphans(site: Site, todo: Plan, request: Request) -> Iterator[Event]:
    if not todo.orphans:
        return
    if not request.remove_orphans:
        names = ", ".join(todo.orphans)
        yield Note(
            machine="",
            level="warning",
            text=f"The spec no longer names these machines of the project: {names}.",
            hint=f"Remove them: vmctl up --remove-orphans {request.path}",
        )
        return

    def work(name: str, worker: Worker) -> None:
        with execute.locked(site, name) as observed:
            removal.remove(site, observed, worker)

    yield from schedule.carry_out(todo.orphans, {}, work)
