"""What the words on a command line mean: files are specs, everything else is a machine's name."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence

from vmctl import errors
from vmctl.store import records
from vmctl.store.layout import Layout

DEFAULT_SPEC = "vmctl.yaml"


def is_file(word: str) -> bool:
    """Tell a spec from a name: it has a slash or ends in .yaml or .yml."""
    return "/" in word or word.endswith((".yaml", ".yml"))


def spec_path(word: str | None) -> pathlib.Path:
    """Return the spec that a word means, ./vmctl.yaml for none; raises UsageError for a name."""
    if word is None:
        return default_spec()
    if not is_file(word):
        raise errors.UsageError(
            f"'{word}' is not a spec file: those end in .yaml or have a slash.",
            hint=f"Did you mean: vmctl start {word} - or ./{word}.yaml?",
        )
    return pathlib.Path(word)


def default_spec() -> pathlib.Path:
    """Return ./vmctl.yaml; raises UsageError where there is none."""
    path = pathlib.Path(DEFAULT_SPEC)
    if not path.exists():
        raise errors.UsageError(
            f"No spec was given, and there is no ./{DEFAULT_SPEC} here.",
            hint="Write a starter: vmctl init",
        )
    return path


def names(words: Iterable[str]) -> list[str]:
    """Return the machines that words mean, each once, in their order.

    A spec stands for its machines. No word at all means ./vmctl.yaml.
    """
    chosen = list(words) or [str(default_spec())]
    found: dict[str, None] = {}
    for word in chosen:
        if is_file(word):
            found.update(dict.fromkeys(in_spec(pathlib.Path(word))))
        else:
            found[word] = None
    return list(found)


def in_spec(path: pathlib.Path, sets: Sequence[str] = ()) -> list[str]:
    """Return the names of a spec's machines.

    Raises ConflictError where the store has such a name for another project: `down SPEC` must not
    remove what was made from another one.
    """
    # Dear to import, and most commands are given names.
    from vmctl.spec import load

    document = load.load(path, sets, allow_outside=True)
    layout = Layout.default()
    for spec in document.machines:
        record = records.read(layout.machine(spec.name))
        if record is not None and record.project != document.project:
            raise errors.ConflictError(
                f"Machine '{spec.name}' belongs to project '{record.project}', "
                f"not to '{document.project}'.",
                hint=f"Name it if you mean that one: {spec.name}",
            )
    return [spec.name for spec in document.machines]
