"""The page for when something goes wrong names what vmctl really says."""

from __future__ import annotations

import ast
import pathlib
import re
from collections.abc import Iterator

TOP = pathlib.Path(__file__).parents[2]
PAGE = TOP / "docs" / "troubleshooting.md"
ROW = re.compile(r"^\| (`.+?`) \|(.*)\|(.*)\|$", re.MULTILINE)
QUOTED = re.compile(r"`(.+?)`")
GAP = "…"


def parts(node: ast.AST) -> str:
    """Return a text of the source with a gap for each value that is put in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(parts(value) for value in node.values)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return GAP


def texts() -> Iterator[str]:
    """Yield all texts of vmctl's source, and of the scripts that guests run."""
    for path in (TOP / "vmctl").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        # What stands alone is printed by nobody: the text that describes a module, a function.
        silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, (ast.JoinedStr, ast.Constant)) and id(node) not in silent:
                text = parts(node)
                if text != GAP:
                    yield text
    for path in (TOP / "images").rglob("*"):
        if path.is_file():
            yield path.read_text(encoding="utf-8", errors="replace")


def test_every_text_is_one_that_vmctl_prints() -> None:
    known = "\0".join(texts())
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    said = [text for first, _, _ in rows for text in QUOTED.findall(first)]
    assert len(said) > 200
    assert [text for text in said if text not in known] == []


def test_every_row_helps() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(ROW.findall(text)) == sum(line.startswith("| `") for line in text.splitlines())
    for said, why, cure in ROW.findall(text):
        assert (why + cure).strip(), said


def test_the_contents_lead_to_the_sections() -> None:
    text = PAGE.read_text(encoding="utf-8")
    titles = re.findall(r"^## (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^a-z -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([a-z-]+)\)", text)) == anchors


def test_the_readme_leads_here() -> None:
    assert "docs/troubleshooting.md" in (TOP / "README.md").read_text(encoding="utf-8")
