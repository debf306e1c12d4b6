from __future__ import annotations

import io
import pathlib
import shlex
from typing import Any

import pytest

from tests.images.containers import file, layer, symlink
from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.images import program
from vmctl.images.rootfs import Tree
from vmctl.images.tarball import Archive

PASSWD = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:,:/srv/app:/bin/sh\nbad:x:x:1::/:/\n"
GROUP = b"root:x:0:\nstaff:x:50:app\n"


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> Tree:
    tree = Tree(tmp_path, "The container image 'x'")
    content = layer(
        file("etc/passwd", PASSWD),
        file("etc/group", GROUP),
        file("usr/bin/serve", mode=0o755),
        symlink("bin", "usr/bin"),
        file("srv/app/tool", mode=0o755),
        file("srv/app/data", mode=0o644),
    )
    tree.apply(Archive(io.BytesIO(content), "The layer"), Deadline.after(60))
    return tree


def of(tree: Tree, **inner: Any) -> program.Program:
    return program.of({"config": {"Cmd": ["serve"], **inner}}, tree, "The container image 'x'")


def test_defaults_are_those_of_container_engines(tree: Tree) -> None:
    found = of(tree)
    assert found.argv == ("/usr/bin/serve",)
    assert found.env == (
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/root",
        "TERM=linux",
    )
    assert (found.directory, found.uid, found.gid, found.stop_signal) == ("/", 0, 0, 15)


def test_entrypoint_then_command(tree: Tree) -> None:
    found = of(tree, Entrypoint=["/bin/serve", "-v"], Cmd=["a b", ""])
    assert found.argv == ("/bin/serve", "-v", "a b", "")


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", (0, 0, True)),
        ("app", (1000, 1001, True)),
        ("app:staff", (1000, 50, True)),
        ("1000", (1000, 1001, True)),
        ("1000:7", (1000, 7, True)),
        ("4321", (4321, 0, False)),
        ("4321:staff", (4321, 50, False)),
    ],
)
def test_users(tree: Tree, user: str, expected: tuple[int, int, bool]) -> None:
    found = of(tree, User=user)
    assert (found.uid, found.gid, found.known_user) == expected


def test_a_user_without_account_gets_one_in_the_guest(tree: Tree) -> None:
    text = program.settings(of(tree, User="4321"), 10).decode()
    assert "account=vmctl:x:4321:0::/:/bin/sh\n" in text
    assert "account=''" in program.settings(of(tree, User="app"), 10).decode()


@pytest.mark.parametrize(
    ("name", "number"),
    [("SIGTERM", 15), ("QUIT", 3), ("9", 9), ("SIGRTMIN+3", 37), ("SIGNONSENSE", 15), ("99", 15)],
)
def test_stop_signals(tree: Tree, name: str, number: int) -> None:
    assert of(tree, StopSignal=name).stop_signal == number


def test_words_of_the_image_stay_words(tree: Tree) -> None:
    evil = "'; rm -rf / #\n$(reboot) `x`"
    found = of(tree, Cmd=["serve", evil, "-x"], Env=[f"E={evil}", "no", "A-B=1"], WorkingDir=evil)
    text = program.script(found).decode()
    words = shlex.split(text.partition("exec ")[2])
    assert words[-3:] == ["--", evil, "-x"]
    assert f"E={evil}" in words and "A-B=1" in words and "no" not in words
    assert f"/{evil}" in words


def test_relative_program_begins_in_the_directory(tree: Tree) -> None:
    assert of(tree, Cmd=["./tool"], WorkingDir="/srv/app").argv == ("/srv/app/./tool",)


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        ({"Cmd": None}, "what to run"),
        ({"Cmd": []}, "what to run"),
        ({"Cmd": [""]}, "what to run"),
        ({"Cmd": ["absent"]}, "no program"),
        ({"Cmd": ["/srv/app/data"]}, "no program"),
        ({"Cmd": ["/srv/app"]}, "no program"),
        ({"Cmd": "serve"}, "cannot be understood"),
        ({"Cmd": [1]}, "cannot be understood"),
        ({"Env": {"A": 1}}, "cannot be understood"),
        ({"Cmd": ["serve", "a\0b"]}, "cannot be understood"),
        ({"User": "nobody"}, "does not have"),
        ({"User": "app:nogroup"}, "does not have"),
        ({"User": "9999999999"}, "no account can have"),
        ({"User": ["root"]}, "cannot be understood"),
        ({"Cmd": ["serve", "x" * 130_000]}, "more arguments"),
    ],
)
def test_refused(tree: Tree, inner: dict[str, Any], reason: str) -> None:
    with pytest.raises(errors.RefusedError, match=reason):
        of(tree, **inner)
