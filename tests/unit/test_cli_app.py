"""The group: commands from the table, global options in both places, errors in one look."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner

from vmctl import __version__, cli, errors
from vmctl.cli import app, context, overview


@click.command()
@click.argument("words", nargs=-1)
@click.option("--json", "as_json", is_flag=True)
@context.options
def look(context: context.Context, words: tuple[str, ...], as_json: bool) -> None:
    """Look at WORDS."""
    click.echo(f"{words} {as_json} {context.uri} {context.quiet} {context.debug}")


@click.group()
@context.options
def many(context: context.Context) -> None:
    """Hold several commands."""


@many.command()
@context.options
def one(context: context.Context) -> None:
    """Do one thing."""
    click.echo(f"{context.uri} {context.quiet}")


@click.command()
@click.argument("what")
def fail(what: str) -> None:
    """Fail in a way of choice."""
    ways: dict[str, Callable[[], BaseException]] = {
        "vmctl": lambda: errors.NotFoundError("There is no 'web'.", hint="vmctl ps"),
        "own": lambda: ZeroDivisionError("division by zero"),
        "interrupt": KeyboardInterrupt,
        "abort": click.Abort,
        "status": lambda: click.exceptions.Exit(5),
        "click": lambda: click.ClickException("It did not work"),
        "file": lambda: FileNotFoundError(2, "No such file or directory", "/nowhere"),
        "full": lambda: OSError(28, "No space left on device"),
        "pipe": BrokenPipeError,
    }
    problem = ways[what]()
    raise problem


@pytest.fixture(autouse=True)
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put commands of the test's own into the table."""
    module = types.ModuleType("vmctl_test_commands")
    vars(module).update(look=look, many=many, fail=fail)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    own = {
        name: (f"{module.__name__}:{name}", f"Test {name}.") for name in ("look", "many", "fail")
    }
    monkeypatch.setitem(overview.SECTIONS, "Test", own)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process, through the error boundary."""

    def runner(*args: str) -> tuple[int, str, str]:
        status = cli.run(args)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return runner


Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("args", [(), ("--help",), ("-h",), ("-q",), ("-c", "x:///")])
def test_help_lists_every_section(run: Run, args: tuple[str, ...]) -> None:
    status, out, err = run(*args)
    assert (status, err) == (0, "")
    for title in ("Machines:", "Look:", "Host:", "Images:", "Spec:", "Shell:"):
        assert f"\n{title}\n" in out
    assert max(map(len, out.splitlines())) <= 80


def test_the_quick_page_is_clicks_page() -> None:
    assert CliRunner().invoke(app.group, ["--help"]).output == overview.text() + "\n"


def test_the_page_names_the_options_that_click_takes() -> None:
    declared = {name for parameter in app.group.params for name in parameter.opts}
    shown = {word.rstrip(",") for option, _text in overview.OPTIONS for word in option.split()}
    assert declared | {"-h", "--help"} == {word for word in shown if word.startswith("-")}


@pytest.mark.parametrize("args", [("--version",), ("-q", "--version")])
def test_version(run: Run, args: tuple[str, ...]) -> None:
    assert run(*args) == (0, f"vmctl {__version__}\n", "")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_commands_have_help_with_the_global_options(run: Run, flag: str) -> None:
    status, out, _err = run("look", flag)
    assert status == 0
    assert "Look at WORDS." in out
    for option in ("-c, --connect URI", "-q, --quiet", "--debug", "-h, --help"):
        assert option in out


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("look",), "() False None False False"),
        (("-c", "a:///", "look"), "() False a:/// False False"),
        (("look", "-c", "a:///"), "() False a:/// False False"),
        (("-c", "a:///", "look", "-c", "b:///"), "() False b:/// False False"),
        (("-q", "look", "x", "--debug", "--json"), "('x',) True None True True"),
        (("--debug", "look", "--connect=a:///", "-q"), "() False a:/// True True"),
        (("look", "--", "-q"), "('-q',) False None False False"),
    ],
)
def test_global_options_count_in_both_places(
    run: Run, args: tuple[str, ...], expected: str
) -> None:
    assert run(*args) == (0, f"{expected}\n", "")


def test_groups_below_pass_the_options_on(run: Run) -> None:
    assert run("-q", "many", "-c", "a:///", "one") == (0, "a:/// True\n", "")
    assert run("many", "one", "-q") == (0, "None True\n", "")


def test_a_group_below_without_a_command_shows_its_help(run: Run) -> None:
    status, out, err = run("many")
    assert "Do one thing." in out + err
    assert "error:" not in err
    assert status in (0, 2)  # click 8.1 took it for a question, later ones take it for a mistake


@pytest.mark.parametrize("group", ["backup", "gitlab", "image", "pool", "snapshot"])
def test_no_line_about_a_command_is_cut_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run([group, "--help"]) == 0
    commands = capsys.readouterr().out.partition("Commands:")[2]
    assert commands
    assert "..." not in commands


def test_a_command_works_alone_too() -> None:
    assert CliRunner().invoke(look, ["-q"]).output == "() False None True False\n"


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("statsu", "Did you mean: vmctl status"),
        ("web.yaml", "vmctl up web.yaml"),
        ("./specs/x", "vmctl up ./specs/x"),
        ("qqq", "vmctl --help"),
    ],
)
def test_a_word_that_is_no_command_gets_a_suggestion(run: Run, word: str, hint: str) -> None:
    status, out, err = run(word)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: There is no command '{word}'.\nhint: ")
    assert hint in err


def test_a_word_with_control_characters_is_shown_harmless(run: Run) -> None:
    assert "'\\x1b[2J'" in run("\x1b[2J")[2]


@pytest.mark.parametrize(
    "args", [("--nonsense",), ("look", "--nonsense"), ("fail",), ("fail", "a", "b"), ("-c",)]
)
def test_usage_errors_have_the_same_look(run: Run, args: tuple[str, ...]) -> None:
    status, out, err = run(*args)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert "\nhint: " in err
    assert "--help" in err
    assert "Usage:" not in err


@pytest.mark.parametrize(
    ("what", "status", "text"),
    [
        ("vmctl", 3, "error: There is no 'web'.\nhint: vmctl ps\n"),
        ("interrupt", 130, "Interrupted.\n"),
        ("abort", 130, "Interrupted.\n"),
        ("status", 5, ""),
        ("click", 1, "error: It did not work.\n"),
        (
            "full",
            1,
            (
                "error: Output could not be written: No space left on device.\n"
                "hint: Free some space, or send the output elsewhere.\n"
            ),
        ),
        (
            "own",
            1,
            (
                "error: vmctl met an error of its own: ZeroDivisionError: division by zero.\n"
                "hint: Run it again with --debug for the traceback.\n"
            ),
        ),
    ],
)
def test_every_end_has_its_status_and_its_words(
    run: Run, what: str, status: int, text: str
) -> None:
    assert run("fail", what) == (status, "", text)


@pytest.mark.parametrize("what", ["file", "pipe"])
def test_errors_of_the_system_that_nobody_foresaw(run: Run, what: str) -> None:
    status, _out, err = run("fail", what)
    assert status == 1
    assert err.startswith("error: vmctl met an error of its own: ")
    assert "Traceback" not in err


def test_debug_before_the_command_shows_the_traceback(run: Run) -> None:
    status, _out, err = run("--debug", "fail", "own")
    assert status == 1
    assert "Traceback" in err
    assert "in fail" in err


def test_json_was_asked_for_and_json_is_what_comes(run: Run) -> None:
    import json

    status, out, err = run("look", "--json", "--nonsense")
    assert status == 2
    assert json.loads(out)["error"]["code"] == 2
    assert err.startswith("error: ")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("compare", "a", "b", "--json", "x"), False),
        (("-q", "compare", "status", "--json", "x"), False),
        (("status", "compare", "--json"), True),
        (("--json", "ps"), True),
        (("no-command", "--json"), True),
        (("exec", "web", "--", "status", "--json"), False),
        (("ps",), False),
    ],
)
def test_whose_json_it_is_is_for_the_command_to_say(args: tuple[str, ...], expected: bool) -> None:
    assert cli._wants_json(args) is expected


def test_json_that_is_a_file_leaves_standard_output_alone(run: Run) -> None:
    status, out, _err = run("compare", "--nonsense", "--json", "file")
    assert (status, out) == (2, "")
    status, out, _err = run("look", "compare", "--json", "--nonsense")
    assert status == 2
    assert out.startswith("{")


def test_every_command_whose_json_is_a_file_is_a_command() -> None:
    assert set(overview.names()) >= overview.JSON_IS_A_FILE


def test_json_of_a_guest_command_is_not_vmctls(run: Run) -> None:
    assert run("fail", "vmctl", "--", "--json")[1] == ""


def test_every_command_of_the_table_has_a_place() -> None:
    for name in overview.names():
        module, _, attribute = (overview.place(name) or "").partition(":")
        assert module
        assert attribute.isidentifier()
        assert overview.line(name).endswith(".")


def test_completing_a_command_imports_none() -> None:
    ctx = click.Context(app.group, info_name="vmctl")
    items = app.group.shell_complete(ctx, "st")
    assert [item.value for item in items] == ["start", "stop", "status"]
    assert items[0].help == overview.line("start")
