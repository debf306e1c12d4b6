"""Commands about the file that people write: validate, schema, init."""

from __future__ import annotations

import json
import os
import pathlib
from typing import TYPE_CHECKING

import click

from vmctl import errors

if TYPE_CHECKING:
    from vmctl.spec.load import Document

DEFAULT_FILE = "vmctl.yaml"


@click.command()
@click.argument("spec", default=DEFAULT_FILE, required=False)
@click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Lay a value over the file."
)
@click.option(
    "--allow-outside", is_flag=True, help="Let the spec name files outside its directory."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def validate(
    ctx: click.Context, spec: str, sets: tuple[str, ...], allow_outside: bool, as_json: bool
) -> None:
    """Check a spec and show every problem in it (default: ./vmctl.yaml).

    Looks at the file alone: not at the host, not at what is running.
    """
    from vmctl.spec import load, problems

    try:
        document = load.load(spec, sets, allow_outside=allow_outside)
    except problems.SpecError as error:
        if not as_json:
            raise
        click.echo(json.dumps({"valid": False, **error.as_dict()}, indent=2))
        ctx.exit(error.exit_code)
    if as_json:
        click.echo(json.dumps(_as_data(document), indent=2))
    else:
        click.echo(_sentence(spec, document))


def _as_data(document: Document) -> dict[str, object]:
    return {
        "valid": True,
        "project": document.project,
        "machines": [machine.model_dump(mode="json") for machine in document.machines],
    }


def _sentence(spec: str, document: Document) -> str:
    from vmctl.spec import problems

    names = [machine.name for machine in document.machines]
    what = "1 machine" if len(names) == 1 else f"{len(names)} machines"
    listed = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    shown = problems.printable(spec)
    return f"{shown} is valid: project '{document.project}', {what}: {listed}."


@click.command()
def schema() -> None:
    """Print the JSON Schema of a spec, for editors."""
    from vmctl.spec import schema as schemas

    click.echo(schemas.text(), nl=False)


@click.command()
@click.argument("file", default=DEFAULT_FILE, required=False)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def init(file: str, force: bool) -> None:
    """Write a commented starter spec (default: ./vmctl.yaml)."""
    from vmctl.spec import problems, scalars, starter
    from vmctl.store import plain_files

    path = pathlib.Path(file)
    name = scalars.made_label(os.path.basename(os.path.abspath(path.parent))) or "hello"
    shown = problems.quoted(file)
    try:
        plain_files.write(path, starter.text(name), replace=force)
    except FileExistsError:
        raise errors.ConflictError(
            f"The file {shown} is there already.",
            hint=f"To write over it: vmctl init --force {_argument(file)}".rstrip(),
        ) from None
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise errors.UsageError(f"The file {shown} cannot be written: {reason}.") from problem
    click.echo(
        f"Wrote {problems.printable(file)}. Run it with: vmctl up {_argument(file)}".rstrip()
    )


def _argument(file: str) -> str:
    import shlex

    return "" if file == DEFAULT_FILE else shlex.quote(file)
