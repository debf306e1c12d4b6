"""Image recipes are read with the same care as specs."""

import pytest

from vmctl.spec import problems, recipe


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "tiny.yaml"
        path.write_text(text)
        return path

    return write


def test_a_recipe(written):
    path = written(
        "name: tiny\ndescription: A small one.\nbuilder: tiny\ndrivers: [virtio, e1000]\n"
        "ready: {pattern: '^ready$', timeout: 20s}\nagent: true\nlogin: root, no password\n"
        "cmdline: console=ttyS0 quiet\n"
    )
    found = recipe.load(path)
    assert (found.name, found.builder, found.agent) == ("tiny", "tiny", True)
    assert found.drivers == (recipe.Driver.VIRTIO, recipe.Driver.E1000)
    assert found.ready == recipe.RecipeReady(pattern="^ready$", timeout=20.0)
    assert found.cmdline == "console=ttyS0 quiet"


def test_every_problem_of_a_recipe_is_shown(written):
    path = written(
        "name: Tiny\ndrivers: [virtio, scsi]\nready: {timeout: 5}\nagnet: true\nkind: x\nlogin:\n"
        "agent: true\nagent: false\n"
    )
    with pytest.raises(problems.SpecError) as caught:
        recipe.load(path)
    found = [(one.line, one.message.split(";")[0]) for one in caught.value.problems]
    assert [line for line, _ in found] == [1, 1, 2, 3, 4, 5, 6, 8]
    assert "key 'builder' is missing" in {message for _, message in found}
    suggestions = {one.suggestion for one in caught.value.problems}
    assert "did you mean 'agent'?" in suggestions
