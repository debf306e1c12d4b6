"""What is written about the spec is made from the models, and covers them."""

import pathlib

from vmctl import shipped
from vmctl.spec import model, reference, schema

DOCS = pathlib.Path(__file__).parent.parent.parent / "docs"
AGAIN = "stale: run python -m vmctl.spec.reference"


def test_the_documents_are_those_of_the_models():
    assert (DOCS / "spec.md").read_text(encoding="utf-8") == reference.text(), AGAIN
    assert (DOCS / "vmctl.schema.json").read_text(encoding="utf-8") == schema.text(), AGAIN


def test_write_makes_both(tmp_path):
    reference.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"spec.md", "vmctl.schema.json"}


def test_every_key_and_every_template_is_described():
    text = reference.text()
    owners = [model.MachineSpec, *(owner for _, owner in reference._SECTIONS)]
    for owner in owners:
        for key, field in owner.model_fields.items():
            assert field.description
            assert f"| `{key}` |" in text
        for key in owner.later:
            assert key in text
    for path in shipped.directory("templates").glob("*.yaml"):
        assert path.name in text
