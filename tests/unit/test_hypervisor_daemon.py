from __future__ import annotations

import sys

import pytest

from vmctl import process
from vmctl.deadline import Deadline
from vmctl.hypervisor import daemon


def test_a_daemon_gets_no_secret_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"PATH": "/here", "HOME": "/home/x", "XDG_RUNTIME_DIR": "/run/x", "LIBVIRT_DEBUG": "1"}
    for name in ("LANG", "TZ", "TMPDIR", "USER", "LOGNAME", "LD_LIBRARY_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**kept, "CUSTOM_ENV_TOKEN": "s3cret", "TOKEN": "s3cret"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(process, "find", lambda name: f"/usr/sbin/{name}")
    asked: list[list[str]] = []

    def run(argv: list[str], *_: object, **__: object) -> process.Completed:
        asked.append(argv)
        return process.Completed(tuple(argv), 0, b"", b"")

    monkeypatch.setattr(process, "run", run)
    daemon._started(["libvirtd", "-d"], Deadline.after(1))
    (argv,) = asked
    cut = argv.index(sys.executable)
    assert argv[:2] == ["env", "-i"]
    assert argv[-2:] == ["/usr/sbin/libvirtd", "-d"]
    settings = dict(word.split("=", 1) for word in argv[2:cut])
    assert kept.items() <= settings.items()
    assert settings["LC_ALL"] == "C.UTF-8"
    assert "s3cret" not in " ".join(argv)


@pytest.mark.allow_process
def test_what_it_gets_is_all_that_it_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUSTOM_ENV_TOKEN", "s3cret")
    done = process.run(["env", "-i", *daemon._settings(), "env"], Deadline.after(20))
    assert "s3cret" not in done.text
    assert "PATH=" in done.text
