"""Starts a daemon and stays to take in the processes that it leaves behind, until none is left.

python keeper.py PROGRAM ARGUMENT…: returns when the program does, with its status and its words; a
daemon goes on in the background, and a process beside it that is its foster parent.

Libvirt ends a guest by waiting until QEMU's process is gone, and QEMU's parent is the first process
of the system. In a container that is often a shell, which never looks after it, or something that
does so now and then: a guest that was ended stays for seconds, or for ever. A child subreaper
(PR_SET_CHILD_SUBREAPER of prctl(2)) takes that place.
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_CHILD_SUBREAPER = 36
_NOT_FOUND = 127


def keep(words: list[str]) -> int:
    """Start the program; returns its status once it has ended or become a daemon."""
    told, tells = os.pipe()
    if os.fork():
        os.close(tells)
        answer = os.read(told, 1)
        return answer[0] if answer else 1
    os.setsid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    status = _run(words)
    _let_go_of_the_terminal()
    os.write(tells, bytes([status]))
    os.close(tells)
    _take_in()
    os._exit(0)


def _run(words: list[str]) -> int:
    child = os.fork()
    if not child:
        try:
            os.execvp(words[0], words)
        finally:
            os._exit(_NOT_FOUND)
    _, state = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(state) & 0xFF


def _let_go_of_the_terminal() -> None:
    """Whoever started us reads our output to its end."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    os.close(nothing)
    os.chdir("/")


def _take_in() -> None:
    """Wait for every child there is, our own and those that were left to us."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
