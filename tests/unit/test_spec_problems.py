"""How problems look."""

from vmctl.spec import problems
from vmctl.spec.problems import Problem, SpecError


def problem(**keywords):
    given = {"file": "lab.yaml", "line": 5, "column": 5, "length": 6, "message": "unknown key"}
    return Problem(**(given | {"source_line": "    memroy: 4G"} | keywords))


def test_the_shape_of_a_report():
    report = problems.render([problem(suggestion="did you mean 'memory'?"), problem(length=0)])
    assert report == (
        "lab.yaml:5:5: error: unknown key — did you mean 'memory'?\n"
        "      memroy: 4G\n"
        "      ^^^^^^\n"
        "lab.yaml:5:5: error: unknown key\n"
        "2 problems; nothing was changed."
    )


def test_a_problem_of_a_set_has_no_line():
    (first, *_) = problems.lines(problem(file="--set 'memory=…'", line=0))
    assert first == "--set 'memory=…': error: unknown key"


def test_a_tab_before_the_caret_stays_a_tab():
    _, line, caret = problems.lines(problem(source_line="\tkey: x", column=2, length=3))
    assert line == "  \tkey: x"
    assert caret == "  \t^^^"


def test_wide_characters_are_two_columns():
    _, _, caret = problems.lines(problem(source_line="日本: x", column=1, length=2))
    assert caret == "  ^^^^"


def test_a_long_line_is_cut_around_the_caret():
    long = problem(source_line="x" * 5000 + "HERE" + "y" * 5000, column=5001, length=4)
    _, line, caret = problems.lines(long)
    assert len(line) < 200
    assert line[caret.index("^") : caret.rindex("^") + 1] == "HERE"
    assert len(long.as_dict()["source_line"]) < 200


def test_control_characters_never_reach_the_terminal():
    nasty = problem(source_line="    \x1b]0;x\x07: \u202e", file="a\x1b.yaml")
    assert not set("\x1b\x07\u202e") & set(problems.render([nasty]))


def test_a_value_in_a_message_is_one_short_line():
    assert problems.quoted("a\nb") == "'a\ufffdb'"
    assert len(problems.quoted("x" * 500)) < 70


def test_problems_are_in_file_order_and_each_is_there_once():
    late, early = problem(line=9), problem(line=2)
    override = problem(file="--set 'a=…'", line=0)
    error = SpecError([override, late, early, late])
    assert error.problems == (early, late, override)
    assert error.message == "3 problems; nothing was changed."
    assert error.exit_code == 2


def test_only_the_first_are_shown_and_all_are_counted():
    many = [problem(line=number, length=0) for number in range(1, 201)]
    error = SpecError(many, unseen=5)
    report = problems.render(error.problems, unseen=error.unseen)
    assert len(report.splitlines()) == problems.MOST_SHOWN + 1
    assert report.endswith("205 problems; nothing was changed.")
    assert error.as_dict()["count"] == 205
    assert len(error.as_dict()["problems"]) == problems.MOST_SHOWN
