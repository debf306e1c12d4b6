from __future__ import annotations

import json

import pytest

from vmctl import errors
from vmctl.guest import remote
from vmctl.runner import nested, wanted
from vmctl.runner.job import Job, Outcome
from vmctl.runner.matrix import Combination
from vmctl.runner.run import Request, Runs
from vmctl.runner.wanted import Wanted
from vmctl.spec import load, problems


def test_options_become_settings() -> None:
    given = {"mode": "full", "nested": True, "cpus": 2, "memory": None, "disk": ""}
    assert wanted.sets(given) == ["mode=full", "nested=true", "cpus=2"]
    assert wanted.sets({"mode": "tcg-virtio", "nested": False}) == [
        *("mode=auto", "accel=tcg", "devices=virtio"),
    ]


def case(name: str, *, passed: bool) -> dict[str, object]:
    return {"name": name, "passed": passed, "milliseconds": 1.0, "detail": "" if passed else "no"}


@pytest.mark.parametrize(
    ("said", "objection"),
    [
        ("opened", ""),
        ("missing", "no /dev/kvm"),
        ("closed", "may not open"),
        ("", "nonsense"),
        (json.dumps({"cases": [case("sse", passed=True)], "seconds": 1, "error": ""}), ""),
        (json.dumps({"cases": [case("sse", passed=False)], "seconds": 1, "error": ""}), "sse: no"),
        (json.dumps({"cases": [], "seconds": 0.0, "error": "denied"}), "denied"),
    ],
)
def test_what_the_guest_says_of_its_kvm(said: str, objection: str) -> None:
    found = nested._objection(said)
    assert objection in found if objection else found == ""


@pytest.mark.parametrize(
    ("outcomes", "worst"),
    [
        ((Outcome(status=0), Outcome(status=0)), 0),
        ((Outcome(status=3), Outcome(status=0)), 3),
        ((Outcome(status=200), Outcome(status=124, problem=remote.CommandTimeoutError(""))), 124),
        ((Outcome(status=255), Outcome(status=125, problem=errors.GuestError(""))), 125),
        ((Outcome(status=0), None), 125),
    ],
)
def test_the_worst_status_is_that_of_all(outcomes: tuple[Outcome | None, ...], worst: int) -> None:
    combinations = tuple(Combination((("A", str(number)),)) for number in range(len(outcomes)))
    request = Request(wanted=Wanted(what="tiny"), job=Job(argv=("x",)), combinations=combinations)
    runs = Runs(request, lambda _: pytest.fail("nothing is run"))
    for result, outcome in zip(runs.results, outcomes, strict=True):
        result.outcome = outcome
    assert runs.status == worst


def test_problems_name_what_was_typed() -> None:
    asked = Wanted(
        what="tiny",
        sets=("memory=1", "cpus=0", "moed=full"),
        typed={
            **wanted.typed({"cpus": 0, "memory": None}, "--{}"),
            **wanted.typed({"moed": "full"}, "--matrix {}=…"),
        },
    )
    text = b"project: p\nname: n\nimage: {name: tiny}\n"
    with pytest.raises(problems.SpecError) as caught, asked.named():
        load.parse(text, "image 'tiny'", asked.sets)
    found = sorted(problem.file for problem in caught.value.problems)
    assert found == ["--cpus", "--matrix moed=…", "--set 'memory=…'"]
    assert "--set 'cpus" not in caught.value.details
