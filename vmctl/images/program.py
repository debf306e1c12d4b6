"""What a container image runs, and as whom: from its configuration to a script for the guest."""

from __future__ import annotations

import dataclasses
import re
import shlex
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from vmctl import errors
from vmctl.images.rootfs import Tree
from vmctl.images.tarball import Kind

ROOT = "/image"
"""Where the image's files are in the guest, seen from the initramfs."""

TOOLS = "/.vmctl"
"""Where the initramfs is, seen from the image's files."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Docker's default."""

_LARGEST = 120 << 10
"""Bytes of words and environment: the kernel takes 128 KiB for one word."""

_LARGEST_ACCOUNTS = 1 << 20
_LARGEST_ID = (1 << 32) - 2
_FIRST_REALTIME = 34


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What runs in the guest; `argv[0]` is a path. `known_user` says that /etc/passwd has it."""

    argv: tuple[str, ...]
    env: tuple[str, ...]
    directory: str
    uid: int
    gid: int
    known_user: bool
    stop_signal: int


def of(config: Mapping[str, Any], tree: Tree, what: str) -> Program:
    """Return what an image's configuration says. Raises RefusedError where it makes no sense."""
    inner = config.get("config")
    known: Mapping[str, Any] = inner if isinstance(inner, dict) else {}
    env = _environment(_words(known.get("Env"), what))
    argv = _words(known.get("Entrypoint"), what) + _words(known.get("Cmd"), what)
    if not argv or not argv[0]:
        raise errors.RefusedError(
            f"{what} does not say what to run: it has neither an entrypoint nor a command.",
            hint="Give it one, for example with buildah config --cmd, and make the archive again.",
        )
    directory = _text(known.get("WorkingDir"), what) or "/"
    uid, gid, home = _account(tree, _text(known.get("User"), what), what)
    env.setdefault("PATH", _PATH)
    env.setdefault("HOME", home or "/")
    env.setdefault("TERM", "linux")
    program = Program(
        argv=(_found(tree, argv[0], env["PATH"], directory, what), *argv[1:]),
        env=tuple(f"{key}={value}" for key, value in env.items()),
        directory=directory if directory.startswith("/") else f"/{directory}",
        uid=uid,
        gid=gid,
        known_user=bool(home),
        stop_signal=_signal(_text(known.get("StopSignal"), what)),
    )
    if sum(len(word) + 1 for word in (*program.argv, *program.env)) > _LARGEST:
        raise errors.RefusedError(f"{what} has more arguments and environment than Linux takes.")
    return program


def script(program: Program) -> bytes:
    """Return the guest's script that becomes the program: its root, directory, user, words.

    Every word of the image's stands in it quoted. The environment comes late: the shell drops
    variables whose names it cannot use. start-stop-daemon changes the user; it is told of a PID
    file that is not there, because it starts nothing where it finds a process that fits.
    """
    busybox = f"{TOOLS}/bin/busybox"
    words = ["exec", "chroot", ROOT, busybox, "sh", "-c", 'cd "$0" && exec "$@"', program.directory]
    words += [busybox, "env", "-i", *program.env]
    words += [busybox, "start-stop-daemon", "-S", "-q", "-p", f"{TOOLS}/none"]
    words += ["-c", f"{program.uid}:{program.gid}", "-x", program.argv[0]]
    words += ["--", *program.argv[1:]]
    lines = [
        "#!/bin/sh",
        "# Becomes the image's program. Its process keeps this script's number.",
        "echo $$ > /run/program.pid",
        # It may open /dev/stdout anew, which is this.
        f"chown {program.uid} /dev/ttyS0",
        shlex.join(words),
    ]
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


def settings(program: Program, sectors: int) -> bytes:
    """Return what the guest's other scripts need to know; `sectors` is the size of the disk."""
    line = "" if program.known_user else f"vmctl:x:{program.uid}:{program.gid}::/:/bin/sh"
    path = next(each for each in program.env if each.startswith("PATH="))
    values = {
        "stop_signal": str(program.stop_signal),
        "account": line,
        "sectors": str(sectors),
        "image_path": path.removeprefix("PATH="),
    }
    lines = [f"{key}={shlex.quote(value)}" for key, value in values.items()]
    return ("\n".join(["# Set when the image was imported.", *lines]) + "\n").encode()


def _text(value: Any, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise errors.RefusedError(f"{what} has a configuration that cannot be understood.")
    return value


def _words(value: Any, what: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise errors.RefusedError(f"{what} has a configuration that cannot be understood.")
    return [_text(each, what) for each in value]


def _environment(words: Sequence[str]) -> dict[str, str]:
    pairs = (word.partition("=") for word in words)
    return {name: value for name, equals, value in pairs if name and equals}


def _found(tree: Tree, word: str, path: str, directory: str, what: str) -> str:
    """Return the path of the program, which must be in the image and executable."""
    if "/" in word:
        places = [word if word.startswith("/") else f"{directory}/{word}"]
    else:
        places = [f"{place or '.'}/{word}" for place in path.split(":")]
    for place in places:
        inode = tree.find(place.encode("utf-8", "surrogateescape"))
        if inode is not None and inode.kind is Kind.FILE and inode.mode & 0o111:
            return place
    raise errors.RefusedError(
        f"{what} wants to run '{word}', which is no program in it.",
        hint="Look at its entrypoint and command: skopeo inspect --config …",
    )


def _account(tree: Tree, user: str, what: str) -> tuple[int, int, str]:
    """Return UID, GID and home directory; the home is empty for a UID that no account has."""
    name, _, group = user.partition(":")
    accounts = _rows(tree, "etc/passwd", 7)
    if not name:
        name = "0"
    number = int(name) if re.fullmatch(r"[0-9]{1,10}", name) else None
    row = next(
        (row for row in accounts if (row[0] == name if number is None else row[2] == number)), None
    )
    if number is None and row is None:
        raise errors.RefusedError(f"{what} runs as '{name}', an account that it does not have.")
    uid = int(row[2]) if row is not None else number or 0
    gid = int(row[3]) if row is not None else 0
    if group:
        gid = _group(tree, group, what)
    if max(uid, gid) > _LARGEST_ID:
        raise errors.RefusedError(f"{what} runs as '{user}', a number that no account can have.")
    return uid, gid, (str(row[5]) or "/") if row is not None else ""


def _group(tree: Tree, group: str, what: str) -> int:
    if re.fullmatch(r"[0-9]{1,10}", group):
        return int(group)
    for row in _rows(tree, "etc/group", 4):
        if row[0] == group:
            return int(row[2])
    raise errors.RefusedError(f"{what} runs in the group '{group}', which it does not have.")


def _rows(tree: Tree, path: str, fields: int) -> list[list[Any]]:
    """Return the rows of an account file whose numbers are numbers."""
    inode = tree.find(path.encode())
    if inode is None or inode.kind is not Kind.FILE:
        return []
    text = tree.read(inode, _LARGEST_ACCOUNTS).decode("utf-8", "surrogateescape")
    rows: list[list[Any]] = []
    for line in text.splitlines():
        row: list[Any] = line.split(":")
        numbers = row[2:4] if fields == 7 else row[2:3]
        if len(row) == fields and all(re.fullmatch(r"[0-9]{1,10}", each) for each in numbers):
            row[2 : 2 + len(numbers)] = [int(each) for each in numbers]
            rows.append(row)
    return rows


def _signal(name: str) -> int:
    """Return the signal that asks the program to end; SIGTERM unless the image says otherwise."""
    name = name.removeprefix("SIG")
    realtime = re.fullmatch(r"RTMIN\+([0-9]|[12][0-9]|30)", name)
    if realtime:
        return _FIRST_REALTIME + int(realtime[1])
    if re.fullmatch(r"[1-9]|[1-5][0-9]|6[0-4]", name):
        return int(name)
    known = signal.Signals.__members__.get(f"SIG{name}")
    return int(known) if known is not None else int(signal.SIGTERM)
