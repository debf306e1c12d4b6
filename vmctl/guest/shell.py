"""Commands for a guest's own shell: exact words, and marks that tell what became of them. Pure.

A command runs under a small POSIX script. It writes a mark before the command begins and one with
the status when it has ended, so that what ssh itself says and its own status 255 are never taken
for the command's. The script arrives on standard input as one line, ahead of the user's own input:
words on a command line of the host would show in its list of processes, with all secrets, and a
guest's ssh server may take only short ones.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping

from vmctl import errors

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MARK = b"\x1evmctl-"
"""A record separator and our name: with the nonce, what no program writes by chance."""

_LONGEST_MARK = 64

CANNOT = 125
"""Status where the command could not be begun, as docker has it."""

BOOTSTRAP = (
    "exec sh -c '"
    "read -r vmctl_ vmctl_ vmctl_ vmctl_ vmctl_group vmctl_ < /proc/$$/stat; "
    'vmctl_run="IFS= read -r vmctl_script; eval \\"\\$vmctl_script\\""; '
    'if [ "$vmctl_group" = $$ ]; then eval "$vmctl_run"; '
    'elif command -v setsid > /dev/null; then exec setsid sh -c "$vmctl_run"; '
    'else eval "$vmctl_run"; fi'
    "'"
)
"""Reads the script and runs it as the leader of a process group, which a timeout can end.

OpenSSH makes a group for each command, dropbear one for all of a connection. The text has nothing
in it that the shells of csh's and fish's kind read otherwise.
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A command: its words, what is added to the environment, where and as whom it runs."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    workdir: str = ""
    user: str = ""


def word(text: str) -> str:
    r"""Quote one word for a POSIX shell without line breaks: those become $vmctl_n of the script.

    Bytes that are no UTF-8 stay what they are (surrogateescape).
    """
    return shlex.quote(text).replace("\n", "'\"$vmctl_n\"'")


def script(request: Request, nonce: str, *, terminal: bool = False) -> str:
    """Return the script of a request, in one line.

    With a terminal there is one stream, which then has all marks. Raises UsageError for a name
    that no environment variable can have.
    """
    told = "" if terminal else " >&2"
    steps = [
        "vmctl_n=$(printf '\\nx')",
        "vmctl_n=${vmctl_n%x}",
        # It outlives what ends the command, to tell how; the command's own signals are as usual.
        "trap : HUP INT QUIT TERM",
        f"m() {{ printf '\\036vmctl-%s %s\\036' {nonce} \"$1\"; }}",
        *_go_to(request.workdir, told),
        *exports(request.env),
        *_choose(request),
        'm "begin $$"',
        # Nothing runs before the word comes: whoever does not hear of us may try again.
        *([] if terminal else ['m "begin $$" >&2', "read -r vmctl_go || exit"]),
        # The shell itself says nothing of how the command died.
        "exec 3>&2 2> /dev/null",
        f"(exec 2>&3 3>&-; {run(request)})",
        "vmctl_s=$?",
        f'm "end $vmctl_s"{told.replace("2", "3")}',
        "exit $vmctl_s",
    ]
    return "; ".join(steps)


def script_with_files(request: Request, directory: str, *, stdin: bool) -> str:
    """Return the script of a request whose streams are the files in, out and err of a directory."""
    source = f"{directory}/in" if stdin else "/dev/null"
    missing = f'{{ echo "vmctl: there is no directory $vmctl_d" >&2; exit {CANNOT}; }}'
    place = request.workdir or "/"
    steps = [
        "vmctl_n=$(printf '\\nx')",
        "vmctl_n=${vmctl_n%x}",
        f"exec < {source} > {directory}/out 2> {directory}/err",
        f"vmctl_d={word(place)}",
        f'cd -- "$vmctl_d" 2> /dev/null || {missing}',
        *exports(request.env),
        *_choose(request),
        run(request),
    ]
    return "; ".join(steps) + "\n"


def exports(env: Mapping[str, str]) -> list[str]:
    """Return the statements that put variables into the environment."""
    for name in env:
        if not _VARIABLE.fullmatch(name):
            raise errors.UsageError(
                f"'{name}' cannot be the name of an environment variable.",
                hint="Letters, digits and _ make a name: -e NAME=VALUE",
            )
    return [f"export {name}={word(value)}" for name, value in env.items()]


def _go_to(directory: str, stream: str) -> list[str]:
    if not directory:
        return []
    failed = f"{{ m 'failed workdir'{stream}; exit {CANNOT}; }}"
    return [f"cd -- {word(directory)} 2> /dev/null || {failed}"]


def _choose(request: Request) -> list[str]:
    """Find out whether somebody else's name must be taken on, and who may do that."""
    if not request.user:
        return []
    return [
        f"vmctl_u={word(request.user)}",
        "vmctl_how=sudo",
        'if [ "$(id -u)" = 0 ]; then vmctl_how=su; fi',
        'if [ "$(id -un)" = "$vmctl_u" ] || [ "$(id -u)" = "$vmctl_u" ]; then vmctl_how=own; fi',
    ]


def run(request: Request) -> str:
    """Return the statement that becomes the command; words are never built-in commands."""
    words = " ".join(word(each) for each in request.argv)
    if not request.user:
        return f"exec {words}"
    kept = ",".join(request.env)
    keep = f" --preserve-env={kept}" if kept else ""
    return (
        f"set -- {words}; case $vmctl_how in "
        'own) exec "$@" ;; '
        'su) exec su -s /bin/sh -c \'exec "$@"\' -- "$vmctl_u" sh "$@" ;; '
        f'*) exec sudo -n -u "$vmctl_u"{keep} -- "$@" ;; esac'
    )


def end(group: int, *, of_others: bool = False) -> str:
    """Return the script that ends a process group: asked first, then without asking.

    `of_others` says that it runs as somebody else than the login user.
    """
    text = (
        f'k() {{ kill -s "$1" -- -{group} 2> /dev/null || kill -s "$1" {group} 2> /dev/null; }}; '
        "k TERM || exit 0; i=0; "
        "while [ $i -lt 20 ] && k 0; do sleep 0.1; i=$((i + 1)); done; k KILL; exit 0"
    )
    if not of_others:
        return text
    quoted = shlex.quote(text)
    return f'if [ "$(id -u)" = 0 ]; then sh -c {quoted}; else sudo -n sh -c {quoted}; fi'


GO = b"go\n"
"""Lets a command run that has said that it could."""


class Marks:
    """Takes the marks out of a stream of bytes, which may come in any pieces.

    What came before the first mark is not the command's (a login script's, ssh's own): it is kept
    in `noise`. `group` is the process group of the command once it has begun, `status` its exit
    status once it has ended, `failed` what the script could not do.
    """

    _NOISE_KEPT = 1 << 16

    def __init__(self, nonce: str) -> None:
        self._begin = _MARK + nonce.encode() + b" "
        self._held = b""
        self.noise = b""
        self.group: int | None = None
        self.status: int | None = None
        self.failed = ""

    @property
    def begun(self) -> bool:
        """True once the command runs."""
        return self.group is not None

    def feed(self, data: bytes) -> bytes:
        """Take in what came, and return what of it is the command's own."""
        rest = self._held + data
        passed = b""
        while True:
            before, mark, after = rest.partition(self._begin)
            told, closed, behind = after.partition(b"\x1e")
            if not mark or (not closed and len(after) > _LONGEST_MARK):
                kept = len(rest) if mark else len(rest) - _overlap(rest, self._begin)
                passed += self._own(rest[:kept])
                self._held = rest[kept:]
                return passed
            passed += self._own(before)
            if not closed:
                self._held = mark + after
                return passed
            self._note(told.decode("ascii", "replace"))
            rest = behind

    def finish(self) -> bytes:
        """Return what was held back at the end of the stream."""
        passed, self._held = self._own(self._held), b""
        return passed

    def _own(self, data: bytes) -> bytes:
        if self.begun:
            return data
        self.noise = (self.noise + data)[-self._NOISE_KEPT :]
        return b""

    def _note(self, told: str) -> None:
        kind, _, value = told.partition(" ")
        number = int(value) if value.isascii() and value.isdigit() else None
        if kind == "begin" and number is not None:
            self.group = number
        elif kind == "end" and number is not None:
            self.status = number
        elif kind == "failed":
            self.failed = value


def _overlap(data: bytes, wanted: bytes) -> int:
    """Return how many bytes at the end of `data` may be the beginning of `wanted`."""
    longest = min(len(data), len(wanted) - 1)
    return next((size for size in range(longest, 0, -1) if wanted.startswith(data[-size:])), 0)
