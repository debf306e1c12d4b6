"""Why a pool's supervisor does not do what it was asked for."""

from __future__ import annotations

from vmctl import errors
from vmctl.runner.pooling.ledger import Ledger, State
from vmctl.runner.pooling.pool import Pool

_TRIES = 3
"""How often a machine is tried to be removed before those who wait for it are told."""


def of_claim(pool: Pool, ledger: Ledger, *, deleting: bool) -> errors.VmctlError | None:
    """Return why nobody gets a machine, now or later; None where they may wait for one."""
    name = pool.name
    if pool.drained or deleting:
        return errors.ConflictError(
            f"Pool '{name}' is drained: it hands no machines out.",
            hint=f"Let it go on: vmctl pool drain --resume {name}",
        )
    if pool.slots == 0:
        return errors.ConflictError(
            f"Pool '{name}' has no slots.", hint=f"Give it some: vmctl pool scale {name} N"
        )
    hopeless = ledger.hopeless()
    if hopeless is not None:
        return errors.HostError(
            f"No machine of pool '{name}' can be made ready: {hopeless.problem}",
            hint=hopeless.hint,
        )
    return None


def of_deletion(pool: Pool, ledger: Ledger) -> errors.VmctlError | None:
    """Return why a pool that is being deleted stays for now; None where that may soon be over."""
    slots = ledger.of(*State)
    failing = [slot for slot in slots if slot.state is State.FAILED and slot.failures >= _TRIES]
    if not slots or len(failing) < len(slots):
        return None
    first = failing[0]
    again = f"It is tried again: vmctl pool status {pool.name}"
    return errors.ConflictError(
        f"Machine '{pool.machine(first.number)}' cannot be removed, and pool '{pool.name}' stays "
        f"until it is: {first.problem}",
        hint=f"{first.hint.rstrip('.')}. {again}" if first.hint else again,
    )


def supervised(name: str, process: int) -> errors.ConflictError:
    """Return the refusal of a second supervisor."""
    return errors.ConflictError(
        f"Pool '{name}' is supervised already (process {process}).",
        hint=f"See what it does: vmctl pool status {name}",
    )


def words(problem: errors.VmctlError) -> str:
    """Return what is wrong in one sentence; of a spec, its first problem and where it stands."""
    if not isinstance(problem, errors.UsageError):
        return problem.message
    from vmctl.spec import problems

    if not isinstance(problem, problems.SpecError) or not problem.problems:
        return problem.message
    first = problems.lines(problem.problems[0])[0].replace(": error: ", ": ", 1)
    others = len(problem.problems) + problem.unseen - 1
    return f"{first} (and {others} more)" if others else first
