"""Chooses kernel modules and writes the tables by which the guest loads them."""

from __future__ import annotations

import dataclasses
import gzip
import lzma
import pathlib
import zlib
from collections.abc import Iterable, Mapping

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.images import elf

_SUFFIXES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")


@dataclasses.dataclass(frozen=True, slots=True)
class Module:
    """One module: where it lies below the kernel's module directory, and what it says of itself."""

    path: str
    content: bytes
    depends: tuple[str, ...]
    wanted_before: tuple[str, ...]
    aliases: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name as the kernel writes it, with underscores."""
        return _name(self.path)


def chosen(directory: pathlib.Path, names: Iterable[str], deadline: Deadline) -> dict[str, Module]:
    """Return the modules `names` below `directory` and all that they depend on, by name.

    A name that the kernel does not have is left out: what is a module in one kernel is built into
    the next. Raises HostError for a module that cannot be read.
    """
    files = {_name(path.name): path for path in directory.rglob("*.ko*") if _is_module(path)}
    found: dict[str, Module] = {}
    waiting = [_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found or name not in files:
            continue
        module = _read(files[name], directory, deadline)
        found[name] = module
        waiting += [*module.depends, *module.wanted_before]
    return dict(sorted(found.items()))


def compressed(module: Module) -> Module:
    """Return the module as modprobe also takes it: a quarter of the size, slower to load."""
    content = gzip.compress(module.content, compresslevel=9, mtime=0)
    return dataclasses.replace(module, path=f"{module.path}.gz", content=content)


def tables(modules: Mapping[str, Module]) -> dict[str, bytes]:
    """Return the files that modprobe reads: dependencies, aliases, and (empty) symbols."""
    dependencies = [
        f"{module.path}: {' '.join(modules[name].path for name in _before(modules, module))}"
        for module in modules.values()
    ]
    aliases = [
        f"alias {alias} {module.name}" for module in modules.values() for alias in module.aliases
    ]
    return {
        "modules.dep": _lines(line.rstrip() for line in dependencies),
        "modules.alias": _lines(aliases),
        "modules.symbols": b"",
    }


def _before(modules: Mapping[str, Module], module: Module) -> list[str]:
    """Return the names that must be loaded before `module`, nearest first as depmod writes them."""
    order: list[str] = []
    waiting = [*module.depends, *module.wanted_before]
    while waiting:
        name = waiting.pop(0)
        if name in modules and name != module.name:
            if name in order:
                order.remove(name)
            order.append(name)
            waiting += [*modules[name].depends, *modules[name].wanted_before]
    return order


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _is_module(path: pathlib.Path) -> bool:
    return path.name.endswith(_SUFFIXES)


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1].split(".ko", 1)[0].replace("-", "_")


def _read(path: pathlib.Path, directory: pathlib.Path, deadline: Deadline) -> Module:
    content = _expanded(path, deadline)
    facts = modinfo(content)
    return Module(
        path=str(path.relative_to(directory)).split(".ko", 1)[0] + ".ko",
        content=content,
        depends=tuple(
            _name(name) for text in facts.get("depends", ()) for name in text.split(",") if name
        ),
        wanted_before=tuple(
            _name(word)
            for text in facts.get("softdep", ())
            if text.startswith("pre:")
            for word in text.removeprefix("pre:").split("post:")[0].split()
        ),
        aliases=tuple(facts.get("alias", ())),
    )


def modinfo(content: bytes) -> dict[str, list[str]]:
    """Return what a module says of itself. Raises HostError when it is no module."""
    try:
        section = elf.Elf(content).section(".modinfo")
    except elf.NotElfError as problem:
        raise errors.HostError(f"A kernel module is damaged: {problem}.") from None
    facts: dict[str, list[str]] = {}
    for part in section.split(b"\0"):
        key, _, value = part.decode("utf-8", "replace").partition("=")
        if key:
            facts.setdefault(key, []).append(value)
    return facts


def _expanded(path: pathlib.Path, deadline: Deadline) -> bytes:
    """Return the module as the kernel wants it; expanding it in the guest would cost time."""
    content = path.read_bytes()
    try:
        if path.suffix == ".xz":
            return lzma.decompress(content)
        if path.suffix == ".gz":
            return zlib.decompress(content, zlib.MAX_WBITS | 16)
    except (lzma.LZMAError, zlib.error) as problem:
        raise errors.HostError(f"The kernel module '{path.name}' is damaged: {problem}.") from None
    if path.suffix == ".zst":
        return process.run(["zstd", "-dc"], deadline, stdin=content).stdout
    return content
