from __future__ import annotations

import pytest

from vmctl import errors
from vmctl.runner import matrix


def test_no_axis_is_one_run_without_a_name() -> None:
    (only,) = matrix.combinations([])
    assert (only.label, only.file_name, only.env, only.options) == ("", "", {}, {})


def test_every_value_meets_every_other_one_in_order() -> None:
    found = matrix.combinations(["PY=3.11,3.12", "mode=full,paravirt"])
    assert [each.label for each in found] == [
        "PY=3.11 mode=full",
        "PY=3.11 mode=paravirt",
        "PY=3.12 mode=full",
        "PY=3.12 mode=paravirt",
    ]
    assert found[1].env == {"PY": "3.11"}
    assert found[1].options == {"mode": "paravirt"}


def test_a_value_makes_no_path() -> None:
    (only,) = matrix.combinations(["A=../../etc passwd"])
    assert only.file_name.startswith("A=.._.._etc_passwd-")
    assert "/" not in only.file_name


def test_no_two_combinations_have_one_name() -> None:
    found = matrix.combinations(["A=x/y,x_y,x y,<,>"])
    assert len({each.file_name for each in found}) == len(found)
    assert found[1].file_name == "A=x_y"


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        (["A"], "got 'A'"),
        (["A="], "got 'A='"),
        (["A=1,,2"], "got 'A=1,,2'"),
        (["=1"], "got '=1'"),
        (["A B=1"], "got 'A B=1'"),
        (["A=1,1"], "a value twice"),
        (["A=1", "A=2"], "given twice"),
        ([f"A={','.join(map(str, range(20)))}", f"B={','.join(map(str, range(20)))}"], "400"),
    ],
)
def test_what_makes_no_matrix_is_refused(axes: list[str], said: str) -> None:
    with pytest.raises(errors.UsageError, match=said):
        matrix.combinations(axes)
