"""What GARM and the operator may say."""

from __future__ import annotations

import base64
import json
import pathlib
from typing import Any

import pytest

from vmctl import errors
from vmctl.runner.ci import garm_guest, garm_terms
from vmctl.runner.ci.garm_terms import Bootstrap, Call, Command, Config
from vmctl.runner.ci.offer import Sizes

ENV = {
    "GARM_COMMAND": "GetInstance",
    "GARM_CONTROLLER_ID": "c",
    "GARM_PROVIDER_CONFIG_FILE": "/x",
    "GARM_INSTANCE_ID": "i",
}


def bootstrap(**more: Any) -> Bootstrap:
    return Bootstrap.of(json.dumps({"name": "garm-A", "image": "tiny", **more}).encode())


@pytest.mark.parametrize(
    ("word", "command"), [("Stop", Command.STOP), ("StartInstance", Command.START)]
)
def test_commands_by_the_names_of_the_code_and_of_the_document(word: str, command: str) -> None:
    assert Call.of({**ENV, "GARM_COMMAND": word}).command == command


@pytest.mark.parametrize("missing", list(ENV))
def test_what_garm_left_out_is_named(missing: str) -> None:
    env = {key: value for key, value in ENV.items() if key != missing}
    with pytest.raises(errors.UsageError, match=missing):
        Call.of(env)


@pytest.mark.parametrize(
    ("key", "value"), [("GARM_COMMAND", "Fly"), ("GARM_INTERFACE_VERSION", "v9")]
)
def test_what_is_not_known_is_named(key: str, value: str) -> None:
    with pytest.raises(errors.UsageError, match=f"'{value}' is not known"):
        Call.of({**ENV, key: value})


def test_commands_of_the_second_version_need_little() -> None:
    env = {"GARM_COMMAND": "GetConfigJSONSchema", "GARM_INTERFACE_VERSION": "v0.1.1"}
    assert Call.of(env).command is Command.CONFIG_SCHEMA
    with pytest.raises(errors.UsageError, match=r"v0\.1\.0 has no command"):
        Call.of({**env, "GARM_INTERFACE_VERSION": ""})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"{}", "names no instance"),
        (b'{"name": 5}', "'name' of the bootstrap is not a text"),
        (b'{"name": "a", "arch": "arm64"}', "wants arch 'arm64'"),
        (b'{"name": "a", "extra_specs": [1]}', "extra specs are not a JSON object"),
        (b'{"name": "a", "extra_specs": {"pre_install_scripts": {"x": "%"}}}', "not base64"),
        (b'{"name": "a", "extra_specs": {"pre_install_scripts": ["%"]}}', "is not a JSON object"),
        (b'{"name": "a", "ca-cert-bundle": "%"}', "'ca-cert-bundle' of the bootstrap is not"),
    ],
)
def test_what_is_no_bootstrap(text: bytes, words: str) -> None:
    with pytest.raises(errors.UsageError, match=words):
        Bootstrap.of(text)


def test_what_is_absent_or_null_is_empty() -> None:
    found = bootstrap(**{"tools": None, "extra_specs": None, "ca-cert-bundle": None})
    assert (found.flavor, found.ca, dict(found.scripts)) == ("", b"", {})
    assert found.values["GARM_TOOLS_URL"] == ""
    assert found.values["GARM_JIT"] == ""


def test_no_secret_shows_in_what_is_printed_of_it() -> None:
    assert "marker" not in repr(bootstrap(**{"instance-token": "marker"}))


def test_the_guest_gets_the_scripts_in_their_order_and_the_token_in_no_line() -> None:
    scripts = {"b": base64.b64encode(b"second").decode(), "a": base64.b64encode(b"first").decode()}
    asked = bootstrap(**{"extra_specs": {"pre_install_scripts": scripts}, "instance-token": "mark"})
    text = garm_guest.script(asked).decode()
    assert text.index(base64.b64encode(b"first").decode()) < text.index(scripts["b"])
    assert "mark" not in text


@pytest.mark.parametrize("text", ["", "bnVsbA==", "e30=", "{}"])
def test_extra_specs_of_a_pool_that_has_none(text: str) -> None:
    assert garm_terms.decoded_extra_specs(text) == {}


def test_a_configuration(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "garm.toml"
    path.write_text('images = ["debian-*"]\n[flavors.big]\ncpus = 4\nnested = true\n')
    found = Config.of(path)
    assert found.sizes("big") == Sizes(cpus=4, nested=True)
    assert found.sizes("") == Sizes()
    assert not found.allow_tcg
    with pytest.raises(errors.UsageError) as caught:
        found.sizes("huge")
    assert caught.value.hint == "The provider's configuration has: default, big"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("images = 'tiny'", "'images' in .* is not of type array"),
        ("images = [5]", "'images' in .* is not of type array"),
        ("allow_tcg = 1", "'allow_tcg' in .* is not of type boolean"),
        ("imagse = []", "'imagse' in .* is not known"),
        ("[flavors.a]\ncpu = 1", r"'cpu' in flavors\.a .* is not known"),
        ("[flavors.a]\ncpus = true", "'cpus' in .* is not of type integer"),
        ("[flavors]\na = 1", r"'flavors\.a' in .* is not a table"),
        ("=", "cannot be read"),
    ],
)
def test_what_is_wrong_in_a_configuration(text: str, words: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "garm.toml"
    path.write_text(text)
    with pytest.raises(errors.UsageError, match=words):
        Config.of(path)
