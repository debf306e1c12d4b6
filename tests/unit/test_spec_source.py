"""YAML traps: nothing is guessed, nothing explodes, everything has a place."""

import os
import time

import pytest
import yaml

from vmctl import errors
from vmctl.spec import nodes, problems, source


def parsed(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return source.parse(raw, "t.yaml")


def complaints(text):
    """The problems of a text, whether or not they hindered reading it."""
    try:
        return list(parsed(text).problems)
    except problems.SpecError as error:
        return list(error.problems)


@pytest.mark.parametrize(
    "written",
    [
        "52:54:00:12:34:56",
        "22:22",
        "12.10",
        "no",
        "on",
        "yes",
        "y",
        "0600",
        "007",
        "0o17",
        "0x1F",
        "1_000",
        "1e3",
        ".inf",
        "2026-01-02",
        "=",
        "~",
        "null",
    ],
)
def test_a_scalar_stays_as_it_was_written(written):
    node = parsed(f"key: {written}\n").root.get("key")
    assert isinstance(node, nodes.Scalar)
    assert node.value == written
    assert isinstance(node.data, nodes.Plain)


@pytest.mark.parametrize("written", ["'no'", '"no"'])
def test_a_quoted_scalar_is_text(written):
    data = parsed(f"key: {written}\n").root.get("key").data
    assert data == "no"
    assert not isinstance(data, nodes.Plain)


@pytest.mark.parametrize(
    ("written", "null"), [("", True), ("~", True), ("Null", True), ("''", False), ("nil", False)]
)
def test_null_is_that_of_yaml_1_2(written, null):
    assert parsed(f"key: {written}\n").root.get("key").null is null


def test_keys_and_values_have_places():
    root = parsed("a:\n  - {b: xyz, c: 'd'}\n").root
    node, place, complete = nodes.find(root, ("a", 0, "b"))
    assert complete
    assert node.path == ("a", 0, "b")
    assert (place.line, place.column, place.length) == (2, 9, 3)
    assert root.get("a").items[0].entries["b"].key.column == 6
    assert (root.get("a").items[0].place.column, root.get("a").items[0].place.length) == (5, 16)


def test_a_path_that_is_not_written_leads_to_its_parent():
    root = parsed("a:\n  b: 1\n").root
    _, place, complete = nodes.find(root, ("a", "x", "y"))
    assert not complete
    assert (place.line, place.column) == (1, 1)


def test_columns_count_characters_also_after_a_byte_order_mark():
    root = parsed(b"\xef\xbb\xbfa: \xf0\x9f\x98\x80\xc3\xa9 x\n").root
    assert root.get("a").place.column == 4
    assert root.get("a").place.length == 4


def test_duplicate_keys_show_both_places():
    (problem,) = complaints("a: 1\nb: 2\na: 3\n")
    assert problem.code == "duplicate-key"
    assert (problem.line, problem.column) == (3, 1)
    assert "line 1, column 1" in problem.message


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: &x 1\n", "anchor"),
        ("a: *x\n", "anchor"),
        ("*x : 1\n", "anchor"),
        ("<<: {a: 1}\n", "anchor"),
        ("a: !!str 1\n", "tag"),
        ("a: !x {}\n", "tag"),
        ("a: ! x\n", "tag"),
        ("%TAG ! tag:x,2000:\n---\na: 1\n", "tag"),
        ("[a]: 1\n", "key"),
        ("{a: 1}: 1\n", "key"),
        ("a: 1\n---\nb: 1\n", "documents"),
        ("", "empty"),
        ("---\n...\n", "empty"),
        ("~\n", "empty"),
        ("- a\n", "type"),
        ("text\n", "type"),
        ('a: "\\0"\n', "control-character"),
        ('a: "\\e"\n', "control-character"),
        ('a: "\\u202e"\n', "control-character"),
        ('"\\x1b": a\n', "control-character"),
        ("a: \x00\n", "control-character"),
        ("a: \x7f\n", "control-character"),
        ("a: \x85\n", "control-character"),
        ("a: \u2028\n", "control-character"),
        ("a: \ufeff\n", "control-character"),
        (b"a: \xed\xa0\x80\n", "encoding"),
        (b"a: \xff\n", "encoding"),
        (b"\xff\xfea\x00", "encoding"),
        ('a: "\\ud800"\n', "syntax"),
        ("a: [\n", "syntax"),
        ("a: 'x\n", "syntax"),
        ("a: b: c\n", "syntax"),
        ("\ta: 1\n", "syntax"),
        ("%YAML 9.9\n---\na: 1\n", "syntax"),
        ("a: " + "[" * 65 + "]" * 65, "too-deep"),
        ("a: [" + "x," * source.MOST_VALUES + "]", "too-big"),
        ("#" * (source.MOST_BYTES + 1), "too-big"),
    ],
)
def test_what_is_refused(text, code):
    found = complaints(text)
    assert code in {problem.code for problem in found}
    for problem in found:
        assert problem.line >= 1
        assert problem.column >= 1


def test_a_file_at_the_limits_is_read():
    assert parsed("a: " + "[" * 62 + "]" * 62)
    assert parsed("a: 1\n" + "#" * (source.MOST_BYTES - 5))


MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    "text",
    [
        MERGE_BOMB,
        "[" * 100_000,
        "{" * 100_000,
        "- " * 100_000,
        "? " * 100_000,
        "{a: " * 100_000,
        "\n".join(" " * n + "a:" for n in range(1000)),
        "&a " * 100_000,
        "*a " * 100_000,
        "a: '" + "x" * 1_000_000,
        "a: " + "x " * 500_000,
        'a: "' + "\\x41" * 200_000 + '"',
        "a: |\n" + " x\n" * 300_000,
        "\x01" * 1_000_000,
        "é" * 500_000,
        "a: 1\n" * 200_000,
        "".join(f"k{n}: 1\n" for n in range(90_000)),
        "x" * 1_000_000 + ": 1\n",
        "#\n" * 500_000,
        "!a " * 300_000,
        "- - - -\n" * 100_000,
    ],
    ids=lambda text: text[:12].replace("\n", "_"),
)
def test_a_bomb_is_over_at_once(text):
    begin = time.monotonic()
    complaints(text)
    assert time.monotonic() - begin < 5


def test_both_parsers_make_the_same_tree(monkeypatch):
    text = "a:\n  - {b: xyz, c: 'd e'}\n  - f: >-\n      g\n      h\ni: [1, 2]\n"

    def flat(node):
        if isinstance(node, nodes.Scalar):
            return (node.value, node.plain, node.place.line, node.place.column)
        if isinstance(node, nodes.Sequence):
            return [flat(item) for item in node.items]
        return {key: flat(entry.node) for key, entry in node.entries.items()}

    assert hasattr(yaml, "CSafeLoader")
    fast = flat(parsed(text).root)
    monkeypatch.setattr(source, "_FAST", None)
    assert flat(parsed(text).root) == fast
    assert "too-big" in {one.code for one in complaints("#" * (source.MOST_BYTES_PURE + 1))}


@pytest.mark.parametrize(
    "text", ["a: [", "a: 'x", "a: b: c", "\ta: 1", "a: @x", "a: 1\n  b: 2", 'a: "\\q"', "a: {b"]
)
def test_the_slow_parser_is_understood_too(text, monkeypatch):
    fast = complaints(text)
    monkeypatch.setattr(source, "_FAST", None)
    slow = complaints(text)
    assert [one.code for one in slow] == ["syntax"] == [one.code for one in fast]
    assert "not valid YAML" not in slow[0].message + fast[0].message


@pytest.mark.parametrize("text", ['a: "\\U99999999"', 'a: "\\ud800"'])
def test_the_slow_parser_does_not_leak_its_errors(text, monkeypatch):
    monkeypatch.setattr(source, "_FAST", None)
    assert complaints(text)


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(errors.NotFoundError) as caught:
        source.read(tmp_path / "no.yaml")
    assert "vmctl init" in caught.value.hint


def test_a_directory_is_no_spec(tmp_path):
    with pytest.raises(errors.UsageError, match="is a directory"):
        source.read(tmp_path)


@pytest.mark.timeout(20)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(errors.UsageError, match="a pipe or a device"):
        source.read(tmp_path / "pipe")
    with pytest.raises(errors.UsageError, match="a pipe or a device"):
        source.read("/dev/zero")


def test_a_name_with_control_characters_is_shown_harmless():
    with pytest.raises(errors.NotFoundError) as caught:
        source.read("/nowhere/\x1b[31m.yaml")
    assert "\x1b" not in caught.value.message
    with pytest.raises(errors.UsageError):
        source.read("nul\0.yaml")
