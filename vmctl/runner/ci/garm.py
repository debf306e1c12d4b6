"""A provider for GARM: machines that are runners of GitHub, Gitea and Forgejo.

An instance is a machine of vmctl's. Its `provider_id` follows from the controller and from GARM's
name for it, so that each can be found by the other.
"""

from __future__ import annotations

import base64
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from vmctl import __version__, errors
from vmctl.deadline import TCG_PATIENCE, Deadline
from vmctl.guest import script as scripts
from vmctl.guest.script import Script
from vmctl.guest.ssh import Access
from vmctl.hypervisor import connection as connections
from vmctl.hypervisor.connection import Connection
from vmctl.lifecycle import access as accesses
from vmctl.lifecycle import observe, power
from vmctl.machine.observed import Observed
from vmctl.machine.state import State
from vmctl.runner.ci import executor, garm_guest, garm_terms
from vmctl.runner.ci.executor import Order
from vmctl.runner.ci.garm_terms import Bootstrap, Call, Command, Config
from vmctl.store.layout import Layout

NOT_FOUND = 30
DUPLICATE = 31
_HAND_OVER_SECONDS = 60.0

_STATUS = {
    State.RUNNING: "running",
    State.STOPPING: "running",
    State.PAUSED: "stopped",
    State.STOPPED: "stopped",
    State.SAVED: "stopped",
}
"""What GARM calls a machine's state; everything else is an error."""


class DuplicateError(errors.ConflictError):
    """There is an instance of this name already."""


def status(problem: errors.VmctlError) -> int:
    """Return the status by which GARM tells failures apart."""
    if isinstance(problem, DuplicateError):
        return DUPLICATE
    return NOT_FOUND if isinstance(problem, errors.NotFoundError) else 1


def carry_out(call: Call, stdin: bytes) -> str:
    """Do what GARM wants and return what it is to read; `stdin` counts for CreateInstance."""
    match call.command:
        case Command.VERSION:
            return f"v{__version__}"
        case Command.INTERFACES:
            return json.dumps(garm_terms.VERSIONS)
        case Command.CONFIG_SCHEMA:
            return json.dumps(garm_terms.config_schema())
        case Command.EXTRA_SCHEMA:
            return json.dumps(garm_terms.extra_specs_schema())
        case Command.VALIDATE_POOL:
            Config.of(pathlib.Path(call.config))
            garm_terms.extra_scripts(garm_terms.decoded_extra_specs(call.extra_specs))
            return ""
    config = Config.of(pathlib.Path(call.config))
    if config.store:
        # GARM hands its providers no environment of ours; this process carries out one call.
        os.environ["VMCTL_HOME"] = os.path.abspath(config.store)
    return Provider(call, config, Layout.default()).carry_out(stdin)


class Provider:
    """The machines of one controller."""

    def __init__(self, call: Call, config: Config, layout: Layout) -> None:
        self._call = call
        self._config = config
        self._layout = layout
        self._uri = config.connection
        self._project = executor.key("garm", call.controller)

    def carry_out(self, stdin: bytes) -> str:
        """Do what concerns instances; returns what GARM is to read."""
        match self._call.command:
            case Command.CREATE:
                return json.dumps(self.create(Bootstrap.of(stdin)))
            case Command.GET:
                return json.dumps(self.get(self._named()))
            case Command.LIST:
                return json.dumps(list(self.every(self._call.pool)))
            case Command.DELETE:
                self.delete(self._named())
            case Command.REMOVE_ALL:
                for key in self._tags():
                    self.delete(key)
            case Command.START:
                executor.done(power.start(self._request(self._named())))
            case Command.STOP:
                # GARM stops what it is about to throw away: there is nothing to wait for.
                executor.done(power.stop(self._request(self._named(), force=True)))
        return ""

    def _request(self, key: str, **how: bool) -> power.Request:
        """Return what stops or starts an instance; raises ConflictError for one of a pool."""
        self._require(key)
        if executor.kept(key, self._layout) is not None:
            raise errors.ConflictError(
                f"Instance '{key}' is a warm machine of a pool, which never stops.",
                hint="Delete it: the pool resets it for the next job.",
            )
        return power.Request(names=[executor.machine(key, self._layout)], uri=self._uri, **how)

    def _tags(self) -> dict[str, dict[str, Any]]:
        return executor.tags(self._layout, self._project)

    def _named(self) -> str:
        """Return the key of what GARM means, by its provider_id or by GARM's own name for it."""
        asked = self._call.instance
        return asked if asked in self._tags() else self._key(asked)

    def _key(self, name: str) -> str:
        return executor.key(name, self._call.controller, name)

    def create(self, bootstrap: Bootstrap) -> dict[str, Any]:
        """Make a machine and start the runner in it; return the instance. On failure nothing stays.

        Raises DuplicateError for an instance that is there already.
        """
        key = self._key(bootstrap.name)
        pool = self._call.pool or bootstrap.pool
        if self._find(key) is not None:
            raise DuplicateError(f"There is an instance '{bootstrap.name}' already: '{key}'.")
        order = Order(
            key=key,
            stem="garm",
            project=self._project,
            choice=self._config.offer.choose(bootstrap.image),
            sizes=self._config.sizes(bootstrap.flavor),
            tag={
                "controller": self._call.controller,
                "pool": pool,
                "instance": bootstrap.name,
                "image": bootstrap.image,
            },
            allow_tcg=self._config.allow_tcg,
            uri=self._uri,
        )
        try:
            executor.done(executor.make(order, self._layout))
            self._hand_over(key, bootstrap)
        except BaseException:
            self.delete(key)
            raise
        return self.get(key)

    def _hand_over(self, key: str, bootstrap: Bootstrap) -> None:
        """Give the guest what makes it a runner, through ssh's pipe, and start that."""
        access = executor.kept(key, self._layout) or self._way(executor.machine(key, self._layout))
        env = {
            **bootstrap.values,
            "GARM_RUNNER_USER": self._config.runner_user,
            "GARM_START": self._config.start,
        }
        said = bytearray()
        patience = TCG_PATIENCE if access.patience > 1 else 1
        done = scripts.run(
            access,
            Script(content=garm_guest.script(bootstrap), env=env, place=garm_guest.MEMORY),
            Deadline.after(_HAND_OVER_SECONDS * patience),
            said.extend,
        )
        if done != 0:
            raise errors.GuestError(
                f"The runner could not be started in machine '{access.name}' (status {done}).",
                details=said.decode("utf-8", "replace"),
            )

    def _way(self, name: str) -> Access:
        with connections.opened(self._uri, self._layout) as connection:
            return accesses.find(connection, self._layout, name)

    def _require(self, key: str) -> None:
        """Raise NotFoundError where there is no such instance."""
        if key not in self._tags():
            raise errors.NotFoundError(
                f"There is no instance '{self._call.instance}' of controller "
                f"'{self._call.controller}'."
            )

    def get(self, key: str) -> dict[str, Any]:
        """Return one instance; raises NotFoundError."""
        self._require(key)
        found = self._find(key)
        if found is None:
            raise errors.NotFoundError(f"There is no instance '{key}' any more.")
        return found

    def _find(self, key: str) -> dict[str, Any] | None:
        tag = self._tags().get(key)
        if tag is None:
            return None
        with connections.opened(self._uri, self._layout) as connection:
            return self._instance(connection, key, tag)

    def every(self, pool: str) -> Iterator[dict[str, Any]]:
        """Yield the instances of a pool."""
        with connections.opened(self._uri, self._layout) as connection:
            for key, tag in self._tags().items():
                found = self._instance(connection, key, tag) if tag.get("pool") == pool else None
                if found is not None:
                    yield found

    def _instance(
        self, connection: Connection, key: str, tag: dict[str, Any]
    ) -> dict[str, Any] | None:
        observed = observe.observe(connection, self._layout, str(tag.get("machine", "")))
        if not observed.exists:
            return None
        found: dict[str, Any] = {
            "provider_id": key,
            "name": str(tag.get("instance", key)),
            "os_type": "linux",
            "os_name": str(tag.get("image", "")),
            "os_version": "",
            "os_arch": "amd64",
            "status": _STATUS.get(observed.state, "error"),
            "addresses": self._addresses(connection, observed),
        }
        fault = observed.reason or f"the machine is {observed.state}"
        try:
            executor.kept(key, self._layout)
        except errors.GuestError as problem:
            found["status"], fault = "error", problem.message
        if found["status"] == "error":
            found["provider_fault"] = base64.b64encode(fault.encode()).decode()
        return found

    def _addresses(self, connection: Connection, observed: Observed) -> list[dict[str, str]]:
        if observed.state is not State.RUNNING:
            return []
        from vmctl.lifecycle import listing

        details = listing.details(connection, self._layout, observed.name)
        return [{"address": address, "type": "private"} for address in details.addresses]

    def delete(self, key: str) -> None:
        """Remove an instance; fine where there is none."""
        executor.done(executor.remove(key, self._project, self._layout, uri=self._uri))
