"""The OpenSSH client: how it is called for a guest, and what its failures mean.

A connection is shared: one ssh process, the master, logs in and stays for a minute of idleness,
and later commands go through its socket without a handshake of their own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import socket
import stat
from collections.abc import Sequence

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.store import locks

CONNECT_SECONDS = 30
"""How long a login may take on real hardware."""

_IDLE_SECONDS = 60
_LONGEST_SOCKET = 86
"""Bytes: sun_path holds 108, and ssh makes the socket under a name that is 17 longer."""

_GREETING = b"SSH-"
_LOOPBACK = ("127.0.0.1", "::1")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where and as whom a guest's ssh server is reached.

    `pinned` says that `known_hosts` held the guest's key before its first start. `run` tells this
    run of the machine from all others; without it the connection is not shared. `patience` is the
    factor on deadlines (10 under TCG).
    """

    name: str
    host: str
    port: int
    user: str
    key: pathlib.Path
    known_hosts: pathlib.Path
    alias: str
    pinned: bool = True
    run: str = ""
    patience: int = 1

    @property
    def target(self) -> str:
        """The user and the host, as ssh takes them."""
        return f"{self.user}@{self.host}"


def options(access: Access) -> dict[str, str]:
    """Return what ssh must be told, by the names of ssh_config(5), values quoted for it.

    A host key that nobody pinned is taken at the first login and kept; not so at a port of this
    host's own, which is QEMU's: images without cloud-init make a new key at each boot.
    """
    own_port = not access.pinned and access.host in _LOOPBACK
    known = "/dev/null" if own_port else _quoted(access.known_hosts)
    # The client's first choice, sntrup761, takes an emulated processor a third of a second.
    quick = {"KexAlgorithms": "^curve25519-sha256"} if access.patience > 1 else {}
    checking = "yes" if access.pinned else "no" if own_port else "accept-new"
    return {
        "HostName": access.host,
        "Port": str(access.port),
        "User": access.user,
        "IdentityFile": _quoted(access.key),
        "IdentitiesOnly": "yes",
        "HostKeyAlias": access.alias,
        "UserKnownHostsFile": known,
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": checking,
        "CheckHostIP": "no",
        "UpdateHostKeys": "no",
        "LogLevel": "ERROR",
        **quick,
    }


def _quoted(path: pathlib.Path) -> str:
    """Quote a path for ssh_config(5), where % begins a token."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'


def command(
    access: Access,
    words: Sequence[str] = (),
    *,
    batch: bool = True,
    terminal: bool = False,
    shared: bool = False,
) -> list[str]:
    """Return the words that run the OpenSSH client; `words` are for the guest's shell to split.

    `batch` never asks a person anything. `terminal` gives the command a terminal in the guest.
    `shared` goes through the master's socket where there is one.
    """
    path = socket_path(access) if shared else None
    told = {
        **options(access),
        "BatchMode": "yes" if batch else "no",
        "ConnectTimeout": str(CONNECT_SECONDS * access.patience),
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "8",
        "ControlMaster": "no",
        "ControlPath": _quoted(path) if path else "none",
    }
    if batch:
        # An agent of the person's own has no part in this, and may be slow or gone.
        told |= {"IdentityAgent": "none", "PreferredAuthentications": "publickey"}
    argv = ["ssh", "-F", "none"]
    for key, value in told.items():
        argv += ["-o", f"{key}={value}"]
    if words:
        argv.append("-tt" if terminal else "-T")
    return [*argv, "--", access.host, *words]


def config(access: Access) -> str:
    """Return a block for ~/.ssh/config, so that `ssh NAME` works."""
    lines = [f"Host {access.name}"]
    lines += [f"    {key} {value}" for key, value in options(access).items()]
    return "\n".join(lines) + "\n"


def answers(host: str, port: int, deadline: Deadline) -> bool:
    """Tell whether an ssh server greets on a port; cheap, and no login."""
    try:
        with socket.create_connection((host, port), timeout=max(0.01, deadline.remaining)) as peer:
            return peer.recv(len(_GREETING)) == _GREETING
    except OSError:
        return False


def socket_path(access: Access) -> pathlib.Path | None:
    """Return where the master's socket is, or None where there is no place for one.

    The name holds the run of the machine: a machine of the same name never meets an old master.
    """
    directory = _runtime_directory()
    if directory is None or not access.run:
        return None
    facts = (access.name, access.host, str(access.port), access.user, str(access.key), access.run)
    name = hashlib.sha256("\0".join(facts).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    path = directory / name
    return path if len(os.fsencode(path)) <= _LONGEST_SOCKET else None


def _runtime_directory() -> pathlib.Path | None:
    """Return a directory of the user's own for sockets, or None."""
    user = os.geteuid()
    given = os.environ.get("XDG_RUNTIME_DIR")
    places = [pathlib.Path(given) / "vmctl"] if given else []
    if user == 0:
        places.append(pathlib.Path("/run/vmctl"))
    places.append(pathlib.Path(f"/tmp/vmctl-{user}"))  # noqa: S108  (checked below)
    for place in places:
        if len(os.fsencode(place)) + 17 > _LONGEST_SOCKET:
            continue
        with contextlib.suppress(OSError):
            place.mkdir(mode=0o700, exist_ok=True)
            found = place.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == user and not found.st_mode & 0o077:
                return place
    return None


def connect(access: Access, deadline: Deadline | None = None) -> bool:
    """Log in, and leave a master for the commands that follow; fine where there is one.

    Returns True where it was there already. Where sockets have no place, it only logs in.

    Raises WaitTimeoutError for a guest that does not answer, RefusedError for another host key
    than the known one, GuestError where the guest refuses the key.
    """
    require_key(access)
    limit = deadline or Deadline.after(CONNECT_SECONDS * access.patience)
    path = socket_path(access)
    if path is None:
        _log_in(command(access, ["exit 0"]), access, limit)
        return False
    if _listens(path):
        return True
    # A few for all: lock files are never removed, and machines come and go.
    lock = path.with_name(f"lock-{path.name[0]}")
    with locks.hold(lock, limit, f"The ssh connection to '{access.name}'"):
        if _listens(path):
            return True
        path.unlink(missing_ok=True)
        words = command(access, shared=True)
        master = ["-o", "ControlMaster=yes", "-o", f"ControlPersist={_IDLE_SECONDS}", "-f", "-N"]
        # The first value that ssh is given counts.
        _log_in([words[0], *master, *words[1:]], access, limit)
    return False


def shared(access: Access) -> bool:
    """Tell whether there is a master for what follows."""
    path = socket_path(access)
    return path is not None and _listens(path)


def disconnect(access: Access) -> None:
    """End the master, and with it what runs through it; fine where there is none."""
    if shared(access):
        words = command(access, shared=True)
        with contextlib.suppress(errors.VmctlError):
            process.run([words[0], "-O", "exit", *words[1:]], Deadline.after(CONNECT_SECONDS))


def _listens(path: pathlib.Path) -> bool:
    """Tell whether a process is behind a socket: a killed one leaves the file."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
    return True


def _log_in(words: Sequence[str], access: Access, deadline: Deadline) -> None:
    try:
        done = process.run(words, deadline, check=False)
    except errors.WaitTimeoutError:
        raise errors.WaitTimeoutError(
            f"Machine '{access.name}' did not let us in within {deadline.seconds:g} s.",
            hint=f"Wait until it is ready: vmctl wait {access.name}; see what it does: "
            f"vmctl logs {access.name}",
        ) from None
    if done.status != 0:
        raise failure(access, done.complaint)


def require_key(access: Access) -> None:
    """Raise NotFoundError where the machine's private key is gone."""
    if not access.key.exists():
        raise errors.NotFoundError(
            f"The ssh key of machine '{access.name}' is gone: there is no '{access.key}'.",
            hint=f"Restart the machine, which makes a new one: vmctl restart {access.name}; where "
            f"the guest does not take that: vmctl down {access.name} && vmctl up",
        )


def failure(access: Access, said: str) -> errors.VmctlError:
    """Return our error for what the OpenSSH client said as it gave up."""
    name, where = access.name, f"{access.host} port {access.port}"
    if "HOST IDENTIFICATION HAS CHANGED" in said or "Host key verification failed" in said:
        return errors.RefusedError(
            f"Machine '{name}' shows another ssh host key than the one in "
            f"'{access.known_hosts}': either its guest made new keys, or somebody else answers "
            f"at {where}. Nothing was sent.",
            hint=f"Look at the guest's own key first: vmctl console {name}; where the change is "
            f"meant, write its key there, after the word {access.alias}.",
        )
    if "Permission denied" in said or "Too many authentication failures" in said:
        return errors.GuestError(
            f"Machine '{name}' does not let '{access.user}' in with the key '{access.key}'.",
            hint=f"Look at the guest: vmctl console {name}; its cloud-init may not have finished: "
            f"vmctl wait {name}",
            details=said,
        )
    if any(mark in said for mark in _NOT_YET):
        return errors.WaitTimeoutError(
            f"Machine '{name}' does not answer ssh at {where} yet.",
            hint=f"Wait until it is ready: vmctl wait {name}; see what it does: vmctl logs {name}",
            details=said,
        )
    return errors.ProgramError(f"ssh cannot reach machine '{name}' at {where}.", details=said)


_NOT_YET = (
    "Connection refused",
    "Connection closed",
    "Connection reset",
    "Connection timed out",
    "timed out",
    "No route to host",
    "Network is unreachable",
    "kex_exchange_identification",
)
"""What ssh says of a guest that is not there yet. QEMU's user network takes every connection, and
closes it when the guest does not."""
