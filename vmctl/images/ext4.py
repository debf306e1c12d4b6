"""Makes an ext4 disk of a tree, without root, mounts or loop devices, the same bytes each time.

mke2fs makes the file system, and debugfs fills it from numbered files: owners, devices and
attributes are only data to it. (mke2fs reads tar archives by itself from version 1.47.1 on.)
"""

from __future__ import annotations

import os
import pathlib
import stat
from collections.abc import Iterator

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.images.rootfs import Inode, Tree
from vmctl.images.tarball import Kind

LABEL = "vmctl-root"
"""The guest finds its disk by this."""

FREE = 512 << 20
"""Room on the disk besides the files (bytes); it takes no place in the store."""

_BLOCK = 4096
_INODE = 256
_INODE_RATIO = 16384
_JOURNAL = 64 << 20
_STEP = 64 << 20
_SPARE_INODES = 4096
_LONGEST_LINE = 8000
"""Bytes; debugfs reads its commands into a buffer of BUFSIZ (8192)."""

_LINE_END = b"\n"
_FEATURES = (
    "has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,"
    "large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
)
"""What Linux 4.x knows already. The host's own defaults would differ from host to host."""

_CONFIGURATION = f"""\
[defaults]
base_features = {_FEATURES}
default_mntopts = acl,user_xattr
enable_periodic_fsck = 0
blocksize = {_BLOCK}
inode_size = {_INODE}
inode_ratio = {_INODE_RATIO}
lazy_itable_init = 1
"""
_LINUX_FORMATS = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.CHARACTER: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
    Kind.FIFO: stat.S_IFIFO,
}


def write(
    tree: Tree, disk: pathlib.Path, spool: pathlib.Path, uuid: str, deadline: Deadline
) -> int:
    """Make the raw disk `disk` and return its size (bytes).

    `spool` is where the tree's contents lie, and a place for more. Raises RefusedError for names
    that cannot be written, HostError, ProgramError, WaitTimeoutError.
    """
    # An ordinary user's PATH often lacks the directory of these programs; `process` looks there.
    configuration = spool / "mke2fs.conf"
    configuration.write_text(_CONFIGURATION)
    env = {
        "MKE2FS_CONFIG": str(configuration),
        # Times that the programs would take from the clock. 0 would mean: ask the clock.
        "E2FSPROGS_FAKE_TIME": "1",
        "E2FSCK_TIME": "1",
        "TZ": "UTC",
    }
    size, inodes = _measures(tree)
    with disk.open("xb") as stream:
        stream.truncate(size)
    options = f"hash_seed={uuid},root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1,nodiscard"
    words = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", str(_BLOCK), "-I", str(_INODE)]
    words += ["-N", str(inodes), "-J", f"size={_JOURNAL >> 20}", "-m", "1", "-L", LABEL]
    process.run([*words, "-U", uuid, "-E", options, disk], deadline, env=env, interruptible=True)
    script = spool / "commands"
    with script.open("wb") as stream:
        for line in _Script(tree, spool).lines():
            stream.write(line + _LINE_END)
    filled = process.run(
        ["debugfs", "-w", "-f", script, disk], deadline, env=env, cwd=spool, interruptible=True
    )
    _refuse_complaints(filled)
    _check(disk, deadline, env)
    return size


def _measures(tree: Tree) -> tuple[int, int]:
    """Return the size of the disk (bytes) and its number of inodes."""
    count = data = 0
    seen: set[int] = set()
    for _, inode in tree.walk():
        if id(inode) in seen:
            continue
        seen.add(id(inode))
        count += 1
        blocks = os.stat(inode.content).st_blocks * 512 if inode.content else 0
        data += max(blocks, _BLOCK if inode.kind is Kind.DIRECTORY or inode.xattrs else 0)
    # Extents, indexes and bitmaps take a part of it.
    content = data + data // 32 + _JOURNAL + FREE
    inodes = max(content // _INODE_RATIO, count + count // 4 + _SPARE_INODES)
    size = content + inodes * _INODE
    return -(-size // _STEP) * _STEP, inodes


def _refuse_complaints(done: process.Completed) -> None:
    """Raise ProgramError when debugfs said anything: it ends with status 0 whatever happened."""
    complaints = [
        line for line in done.stderr.splitlines() if line and not line.startswith(b"debugfs 1.")
    ]
    if complaints:
        raise errors.ProgramError(
            "debugfs could not write the files of the container image.",
            details=b"\n".join(complaints[:10]).decode("utf-8", "replace"),
        )


def _check(disk: pathlib.Path, deadline: Deadline, env: dict[str, str]) -> None:
    """Let e2fsck index the directories, and then find nothing more to do."""
    done = process.run(
        ["e2fsck", "-f", "-y", "-D", disk], deadline, env=env, check=False, interruptible=True
    )
    if done.status not in (0, 1):
        raise process.failure(done)
    process.run(["e2fsck", "-f", "-n", disk], deadline, env=env)


class _Script:
    """The commands for debugfs that put a tree's files on the disk."""

    def __init__(self, tree: Tree, spool: pathlib.Path) -> None:
        self._tree = tree
        self._spool = spool
        self._first: dict[int, bytes] = {}
        self._links: dict[int, int] = {}
        self._attributes = 0
        for _, inode in tree.walk():
            self._links[id(inode)] = self._links.get(id(inode), 0) + 1

    def lines(self) -> Iterator[bytes]:
        """Yield the commands, each without the line's end."""
        yield from self._facts(b"/", self._tree.root)
        yield from self._below(b"", self._tree.root)

    def _below(self, place: bytes, directory: Inode) -> Iterator[bytes]:
        names = sorted(directory.entries)
        yield from self._room(names)
        for name in names:
            inode = directory.entries[name].inode
            path = place + b"/" + name
            local = _quoted(b"./" + name)
            first = self._first.get(id(inode))
            if first is not None:
                yield _line(b"ln", _quoted(first), local)
                continue
            self._first[id(inode)] = path
            if (place, name) != (b"", b"lost+found"):
                yield from self._made(name, inode)
            yield from self._facts(local, inode)
            links = self._links[id(inode)]
            if links > 1:
                yield _line(b"sif", local, b"links_count", b"%d" % links)
            if inode.kind is Kind.DIRECTORY and inode.entries:
                yield _line(b"cd", local)
                yield from self._below(path, inode)
                yield _line(b"cd", b"..")

    def _room(self, names: list[bytes]) -> Iterator[bytes]:
        """Make a directory large enough: debugfs's `ln` does not do it."""
        needed = sum(8 + -(-len(name) // 4) * 4 for name in names)
        # Entries do not cross blocks: the last piece of each may stay empty.
        for _ in range(needed // (_BLOCK - 264)):
            yield b"expand_dir ."

    def _made(self, name: bytes, inode: Inode) -> Iterator[bytes]:
        local = _quoted(b"./" + name)
        match inode.kind:
            case Kind.DIRECTORY:
                yield _line(b"mkdir", local)
            case Kind.SYMLINK:
                yield _line(b"symlink", local, _quoted(inode.target))
            case Kind.FIFO:
                yield _line(b"mknod", _quoted(name), b"p")
            case Kind.CHARACTER | Kind.BLOCK:
                kind = b"c" if inode.kind is Kind.CHARACTER else b"b"
                yield _line(
                    b"mknod", _quoted(name), kind, b"%d" % inode.device[0], b"%d" % inode.device[1]
                )
            case _:
                content = inode.content.name.encode() if inode.content else self._empty()
                yield _line(b"write", content, _quoted(name))

    def _empty(self) -> bytes:
        path = self._spool / "empty"
        path.touch()
        return path.name.encode()

    def _facts(self, local: bytes, inode: Inode) -> Iterator[bytes]:
        mode = 0o777 if inode.kind is Kind.SYMLINK else inode.mode
        yield _line(b"sif", local, b"mode", b"0%o" % (_LINUX_FORMATS[inode.kind] | mode))
        if inode.uid:
            yield _line(b"sif", local, b"uid", b"%d" % inode.uid)
        if inode.gid:
            yield _line(b"sif", local, b"gid", b"%d" % inode.gid)
        yield _line(b"sif", local, b"mtime", b"@%d" % inode.mtime)
        for key, value in sorted(inode.xattrs.items()):
            self._attributes += 1
            path = self._spool / f"attribute-{self._attributes}"
            path.write_bytes(value)
            yield _line(b"ea_set", b"-f", path.name.encode(), local, _quoted(key))


def _quoted(word: bytes) -> bytes:
    """Quote a word as debugfs reads it: a quote inside is written twice (libss, parse.c)."""
    return b'"' + word.replace(b'"', b'""') + b'"'


def _line(*words: bytes) -> bytes:
    line = b" ".join(words)
    if len(line) > _LONGEST_LINE or b"\n" in line or b"\0" in line:
        raise errors.RefusedError(
            "The container image holds a name or link that cannot be written to a disk: "
            f"'{os.fsdecode(line[:200])}'."
        )
    return line
