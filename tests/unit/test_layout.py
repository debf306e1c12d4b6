"""The shape of the code: sizes, names, and that what exists is documented and exercised."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest

from tests import replay
from vmctl.cli import overview

PACKAGE = replay.ROOT / "vmctl"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FUNCTION = 60
LONGEST_FILE = 450


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path: pathlib.Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(line.lineno for line in node.decorator_list)])
            assert node.end_lineno is not None
            assert node.end_lineno - first < LONGEST_FUNCTION, node.name


def test_tests_stay_small_enough_to_be_found_again() -> None:
    sizes = {
        path: len(path.read_text().splitlines()) for path in (replay.ROOT / "tests").rglob("*.py")
    }
    assert not {str(path): size for path, size in sizes.items() if size > LONGEST_FILE}


def test_no_file_without_a_thing_to_be_named_after() -> None:
    assert not [
        path for path in MODULES if re.fullmatch(r"(utils?|helpers?|misc|common)", path.stem)
    ]


def test_packages_have_no_logic_in_their_front() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent.name not in ("vmctl", "cli"):
            statements = ast.parse(path.read_text()).body
            assert all(isinstance(statement, ast.Expr) for statement in statements), path


def test_every_command_is_in_the_readme() -> None:
    readme = (replay.ROOT / "README.md").read_text()
    for command in overview.names():
        assert f"`{command}" in readme, command


def test_every_kind_of_error_is_raised_somewhere() -> None:
    kinds = re.findall(r"^class (\w+)\(", (PACKAGE / "errors.py").read_text(), re.MULTILINE)
    text = "".join(path.read_text() for path in MODULES if path.name != "errors.py")
    for kind in kinds:
        assert re.search(rf"errors\.{kind}\b", text), kind


def test_every_document_is_reachable_from_the_readme() -> None:
    readme = (replay.ROOT / "README.md").read_text()
    decisions = (replay.ROOT / "docs/decisions/README.md").read_text()
    texts = [path.read_text() for path in (replay.ROOT / "docs").rglob("*.md")]
    for path in (replay.ROOT / "docs").rglob("*.*"):
        named = str(path.relative_to(replay.ROOT)) in readme or path.name in decisions
        # What is no text to read stands beside one.
        attached = path.suffix != ".md" and any(f"({path.name})" in text for text in texts)
        assert named or attached, path


def test_every_link_of_the_documents_leads_somewhere() -> None:
    documents = [replay.ROOT / "README.md", *(replay.ROOT / "docs").rglob("*.md")]
    for document in documents:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document}: {target}"
