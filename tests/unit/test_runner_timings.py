from __future__ import annotations

from vmctl.runner.timings import Stage, Timings


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_stages_add_up_and_come_in_their_order() -> None:
    clock = Clock()
    timings = Timings(clock)
    for stage, seconds in ((Stage.COMMAND, 2.0), (Stage.IMAGE, 0.5), (Stage.COMMAND, 1.0)):
        with timings.stage(stage):
            clock.now += seconds
    clock.now += 0.25
    assert list(timings.as_dict().items()) == [("image", 0.5), ("command", 3.0), ("total", 3.75)]


def test_only_the_first_byte_counts() -> None:
    clock = Clock()
    timings = Timings(clock)
    assert timings.first_output is None
    for seconds in (1.5, 2.0):
        clock.now += seconds
        timings.note_output()
    assert timings.first_output == 1.5


def test_a_stage_that_fails_took_its_time_too() -> None:
    clock = Clock()
    timings = Timings(clock)
    try:
        with timings.stage(Stage.BOOT):
            clock.now += 7
            raise ValueError
    except ValueError:
        pass
    assert timings.seconds == {Stage.BOOT: 7.0}


def test_every_stage_has_a_meaning() -> None:
    assert all(stage.meaning for stage in Stage)
