"""Makes the probe: one static binary, compiled on this host, that every mode runs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import tempfile

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.store import files

SOURCE = pathlib.Path(__file__).parent / "probe" / "probe.c"
BROUGHT = SOURCE.with_name("brought")
"""A probe that another host has compiled, as for the lab host, which has no compiler."""

# -march says which instructions there may be: those that every x86-64 processor and TCG have.
_FLAGS = ("-std=gnu11", "-O2", "-march=x86-64", "-static", "-s", "-Wl,--build-id=none")
_SECONDS = 120.0
_EXECUTABLE = 0o755


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The binary and what it was made with; `digest` is its sha256 (hex)."""

    path: pathlib.Path
    digest: str
    compiler: str

    def as_dict(self) -> dict[str, str]:
        """Return what results say of it."""
        return {
            "sha256": self.digest,
            "compiler": self.compiler,
            "flags": " ".join(_FLAGS),
            "source_sha256": hashlib.sha256(SOURCE.read_bytes()).hexdigest(),
        }


def compile_into(directory: pathlib.Path) -> Probe:
    """Compile the probe, unless it came from elsewhere and is of this very source.

    Raises HostError where there is no compiler or no static C library.
    """
    brought = _brought(directory)
    if brought is not None:
        return brought
    compiler = process.find("gcc") or process.find("cc")
    if compiler is None:
        raise errors.HostError(
            "There is no C compiler (gcc) to make the probe with, the program that measures.",
            hint="Install one: sudo apt-get install gcc libc6-dev",
        )
    deadline = Deadline.after(_SECONDS)
    path = directory / "probe"
    with tempfile.TemporaryDirectory(dir=directory) as place:
        draft = pathlib.Path(place) / "probe"
        try:
            # Without the path of the source in it, equal sources give equal binaries.
            process.run([compiler, *_FLAGS, "-o", draft, SOURCE.name], deadline, cwd=SOURCE.parent)
        except errors.ProgramError as problem:
            raise errors.HostError(
                "The probe, the program that measures, could not be compiled.",
                hint="A static C library is needed: on Debian libc6-dev, on Fedora glibc-static.",
                details=problem.details,
            ) from None
        draft.chmod(_EXECUTABLE)
        draft.rename(path)
    version = process.run([compiler, "--version"], deadline).text.partition("\n")[0]
    return Probe(
        path=path, digest=hashlib.sha256(path.read_bytes()).hexdigest(), compiler=version.strip()
    )


def luggage(directory: pathlib.Path) -> dict[str, bytes]:
    """Return, by name, the files that are brought to a host which cannot compile (`BROUGHT`).

    The probe is compiled in `directory`. Raises HostError as `compile_into` does.
    """
    probe = compile_into(directory)
    papers = json.dumps(probe.as_dict()).encode()
    return {BROUGHT.name: probe.path.read_bytes(), f"{BROUGHT.name}.json": papers}


def _brought(directory: pathlib.Path) -> Probe | None:
    """Return a copy of the probe that another host has compiled of the same source, if any."""
    told = files.read_json(BROUGHT.with_suffix(".json")) or {}
    here = hashlib.sha256(SOURCE.read_bytes()).hexdigest()
    if told.get("source_sha256") != here or not BROUGHT.is_file():
        return None
    path = directory / "probe"
    content = BROUGHT.read_bytes()
    path.write_bytes(content)
    path.chmod(_EXECUTABLE)
    return Probe(
        path=path,
        digest=hashlib.sha256(content).hexdigest(),
        compiler=str(told.get("compiler", "")),
    )
