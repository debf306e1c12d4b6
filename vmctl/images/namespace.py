"""Runs programs as root of a namespace of their own, so that files can have any owner.

An ordinary user needs a range of subordinate user and group numbers for that (subuid(5)), which
Debian gives to every user that adduser makes, and the programs that hand them out (uidmap).
"""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence

from vmctl import errors, process
from vmctl.deadline import Deadline

_COMMON = (
    # It ends with vmctl, however that ends, and takes along all that runs in it.
    *("setpriv", "--pdeathsig", "KILL", "--"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
)
_ORDINARY = ("--user", "--map-root-user", "--map-auto")
_PATIENCE = 60.0


def run(
    argv: Sequence[str | os.PathLike[str]],
    deadline: Deadline,
    *,
    env: Mapping[str, str] | None = None,
    interruptible: bool = True,
) -> process.Completed:
    """Run a program as root of a namespace; it and all that it starts end together.

    Raises what `process.run` does.
    """
    return process.run([*_prefix(), "--", *argv], deadline, env=env, interruptible=interruptible)


def _prefix() -> Sequence[str]:
    return _COMMON if os.geteuid() == 0 else (*_COMMON, *_ORDINARY)


def require(deadline: Deadline) -> None:
    """Make sure that namespaces can be had. Raises HostError with the way to get them."""
    # As an ordinary user, becoming somebody else is what needs the range of numbers.
    other = () if os.geteuid() == 0 else ("setpriv", "--reuid=100", "--regid=100", "--clear-groups")
    try:
        run([*other, "true"], deadline)
    except (errors.ProgramError, errors.HostError) as problem:
        raise _refusal(problem) from None


def _refusal(problem: errors.VmctlError) -> errors.HostError:
    details = problem.details or problem.message
    if os.geteuid() == 0:
        return errors.HostError(
            "This root may not make namespaces, as in a container without privileges.",
            hint="Build the image on another machine, or start the container with more: "
            "docker run --cap-add SYS_ADMIN --security-opt seccomp=unconfined …",
            details=details,
        )
    if process.find("newuidmap") is None:
        return errors.HostError(
            "Building this image as an ordinary user needs the program 'newuidmap'.",
            hint="Install it: sudo apt install uidmap. Or build the image as root.",
        )
    user = os.environ.get("USER") or str(os.geteuid())
    return errors.HostError(
        f"User '{user}' may not make a namespace with users of its own.",
        hint="Give the user a range of them: sudo usermod --add-subuids 100000-165535 "
        f"--add-subgids 100000-165535 {user}. Or build the image as root.",
        details=details,
    )


def remove_tree(directory: pathlib.Path, deadline: Deadline) -> None:
    """Remove a directory with files of owners that only the namespace knows."""
    shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():
        run(["rm", "-rf", "--", directory], deadline.within(_PATIENCE), interruptible=False)
