"""What jobs may ask for."""

from __future__ import annotations

import pathlib

import pytest

from vmctl.runner.ci.offer import Choice, NotOfferedError, Offer, Sizes


@pytest.mark.parametrize("asked", ["debian-13", "tiny", ""])
def test_what_is_offered(asked: str) -> None:
    offer = Offer(default="tiny", images=("debian-*",))
    assert offer.choose(asked) == Choice(image=asked or "tiny")


@pytest.mark.parametrize("asked", ["ubuntu-24.04", "TINY", "/etc/passwd", "tiny\nmounts: []", "*"])
def test_what_is_not(asked: str) -> None:
    with pytest.raises(NotOfferedError) as caught:
        Offer(default="tiny", images=("debian-*",)).choose(asked)
    assert caught.value.hint == "Ask for one of these: tiny, debian-*"


def test_nothing_at_all_is_offered_by_default() -> None:
    for asked in ("", "tiny"):
        with pytest.raises(NotOfferedError):
            Offer().choose(asked)


def test_a_spec_goes_before_an_image_and_only_by_its_plain_name(tmp_path: pathlib.Path) -> None:
    specs = tmp_path / "specs"
    specs.mkdir()
    (specs / "big.yaml").touch()
    (tmp_path / "outside.yaml").touch()
    offer = Offer(images=("*",), specs=str(specs))
    assert offer.choose("big") == Choice(spec=str(specs / "big.yaml"))
    assert offer.choose("../outside") == Choice(image="../outside")
    assert offer.choose("small") == Choice(image="small")
    with pytest.raises(NotOfferedError) as caught:
        Offer(specs=str(specs)).choose("../outside")
    assert caught.value.hint == "Ask for one of these: big"


def test_a_pool_goes_before_all_else() -> None:
    offer = Offer(default="warm", pools=("warm",), images=("warm",))
    assert offer.choose("warm") == offer.choose("") == Choice(pool="warm")


def test_names_are_quoted_in_the_spec_that_is_written() -> None:
    sizes = Sizes(memory="1GiB", nested=True)
    lines = Choice(image='x", mounts: ["').lines(sizes)
    assert lines == ['image: {name: "x\\", mounts: [\\""}', 'memory: "1GiB"', "nested: true"]
    # A spec of the operator's says itself how large its machine is.
    assert Choice(spec="/a b.yaml").lines(sizes) == ['base: "/a b.yaml"']
