"""What holds for every command: the connection, and how much is said."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import click

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclasses.dataclass(slots=True)
class Context:
    """The global options; `uri` is None where the user named no connection."""

    uri: str | None = None
    quiet: bool = False
    debug: bool = False


def _note(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Put an option that was given into the one Context; what was not given changes nothing."""
    if value and parameter.name:
        setattr(context.ensure_object(Context), parameter.name, value)


def declare(command: _Command) -> _Command:
    """Give `command` the global options; they end up in the Context, not in its parameters."""
    merged: dict[str, Any] = {"expose_value": False, "callback": _note}
    for option in (
        click.option("--debug", is_flag=True, help="Show tracebacks.", **merged),
        click.option(
            "-q", "--quiet", is_flag=True, help="Say only what failed or needs attention.", **merged
        ),
        click.option("-c", "--connect", "uri", metavar="URI", help="Libvirt connection.", **merged),
    ):
        command = option(command)
    return command


def options(command: Callable[Concatenate[Context, _P], _R]) -> Callable[_P, _R]:
    """Give a command the global options, and the Context as its first argument.

    Stands nearest to the function, below @click.command and the command's own options.
    """
    return declare(click.make_pass_decorator(Context, ensure=True)(command))
