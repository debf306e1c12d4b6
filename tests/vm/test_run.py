"""`vmctl run`: a job's bytes, words, status and files are exact, and nothing of it is left."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import subprocess
import time
from collections.abc import Iterator, Sequence

import pytest

from tests.vm.conftest import PATIENCE, Site

pytestmark = pytest.mark.vm

TINY = ("tiny", "--memory", "128MiB")
SECRET = "se-cret-ma-rk-er-4711"
WORDS = ("", "two  words", "'\"", "$HOME `id` *", "a\nb\n", "ünï→", os.fsdecode(b"\xff\xfe"))
MIB = 1 << 20


def run(
    site: Site, *words: str, stdin: bytes = b"", **env: str
) -> subprocess.CompletedProcess[bytes]:
    """Run vmctl run, which says nothing of its own where all is well."""
    return subprocess.run(
        site.command("run", "-q", *words),
        input=stdin,
        env={**site.env, **env},
        capture_output=True,
        timeout=PATIENCE * 2,
        check=False,
    )


def script(text: str, *options: str, image: Sequence[str] = TINY) -> list[str]:
    return [*image, *options, "--", "sh", "-c", text]


def runs_of(site: Site) -> list[str]:
    """Return the directories of runs, whether they live or not."""
    return sorted(path.name for path in (site.home / "machines").glob("run-*"))


def processes(site: Site) -> dict[int, bytes]:
    """Return the command lines that have to do with runs of this store."""
    mark = f"run-{identity(site)}".encode()
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes()
            if mark in line:
                found[int(path.parent.name)] = line
    return found


def identity(site: Site) -> str:
    return str(json.loads((site.home / "store.json").read_text())["id"])[:6]


def qemu_of(site: Site, name: str) -> int:
    mark = f"guest={name},".encode()
    (pid,) = (pid for pid, line in processes(site).items() if mark in line and b"qemu" in line)
    return pid


def gone(site: Site) -> None:
    """Wait until nothing of any run is there: what libvirt and ssh end takes them a moment."""
    end = time.monotonic() + PATIENCE
    while processes(site):
        assert time.monotonic() < end, processes(site)
        time.sleep(0.05)


def contents(site: Site) -> Iterator[bytes]:
    """Yield all that vmctl and libvirt have on disk of machines: names, files, logs."""
    places = [site.home, pathlib.Path("/var/log/libvirt/qemu"), pathlib.Path("/run/libvirt/qemu")]
    for place in places:
        for path in place.rglob("*"):
            yield os.fsencode(path)
            if path.is_file() and "images" not in path.parts:
                with contextlib.suppress(OSError):
                    yield path.read_bytes()


def test_bytes_words_and_status_are_exact(site: Site) -> None:
    """One guest: binary output on both streams, input, odd words, a secret, a status."""
    text = f"""
    printf '%s' "$SECRET" > /tmp/marker
    grep -q -F -f /tmp/marker /proc/[0-9]*/cmdline && exit 99
    [ "$(md5sum < /tmp/marker)" = "{hashlib.md5(SECRET.encode()).hexdigest()}  -" ] || exit 98
    for word; do printf '%s\\0' "$word"; done
    head -c {20 * MIB} /dev/urandom > /tmp/noise; md5sum < /tmp/noise >&2; cat /tmp/noise
    printf '\\377\\000\\033\\r\\n\\036' >&2
    md5sum >&2
    exit 37
    """
    noise = os.urandom(MIB)
    # The noise lies in memory, of which files may take a half.
    ran = [*script(text, "-e", "SECRET", "--memory", "256MiB", image=("tiny",)), "sh", *WORDS]
    with subprocess.Popen(
        site.command("run", "-q", *ran),
        env={**site.env, "SECRET": SECRET},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # else what was read ahead would be lost to `communicate`
    ) as process:
        assert process.stdout is not None
        begun = process.stdout.read(1)
        lines = [line for line in processes(site).values() if SECRET.encode() in line]
        assert processes(site) and not lines
        assert not [each for each in contents(site) if SECRET.encode() in each]
        rest, err = process.communicate(noise, timeout=PATIENCE)
    out = begun + rest
    words = b"".join(os.fsencode(word) + b"\0" for word in WORDS)
    assert process.returncode == 37, err[-500:]
    assert out.startswith(words)
    sent = hashlib.md5(out[len(words) :]).hexdigest().encode()
    took = hashlib.md5(noise).hexdigest().encode()
    assert len(out) == len(words) + 20 * MIB
    assert err == sent + b"  -\n\xff\x00\x1b\r\n\x1e" + took + b"  -\n"
    gone(site)
    assert runs_of(site) == []
    assert not [each for each in contents(site) if SECRET.encode() in each]


def test_a_timeout_leaves_the_files(site: Site, tmp_path: pathlib.Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "ünï").write_text("from here\n")
    text = "cat src/ünï > /tmp/report; echo $PWD >> /tmp/report; echo begun; exec sleep 600"
    options = (
        *("--copy-in", f"{tmp_path}/in:/root/src", "--copy-out", f"/tmp/report:{tmp_path}/out"),
        *("--copy-out", f"/tmp/none:{tmp_path}/none", "--timeout", "2s", "--workdir", "/root"),
        *("--serial-log", f"{tmp_path}/console", "--report", f"{tmp_path}/report.json"),
        *("--timings", "--json", "--mode", "full"),
    )
    done = run(site, *script(text, *options))
    assert done.returncode == 124, done.stderr
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "report.json").read_text())
    (result,) = report["runs"]
    assert (tmp_path / "out").read_text() == "from here\n/root\n"
    assert "vmctl-tiny: ready" in (tmp_path / "console").read_text()
    assert (result["status"], result["timed_out"], result["failed"]) == (124, True, False)
    assert "'/tmp/none' was not copied out" in result["remarks"][0]
    assert "did not end within 2 s" in done.stderr.decode()
    assert b"begun" in done.stderr and b"copy-out" in done.stderr
    stages = list(result["timings"])
    assert stages == [
        *("image", "overlay", "start", "boot", "ready"),
        *("copy-in", "command", "copy-out", "teardown", "total"),
    ]
    assert sum(result["timings"][name] for name in stages[:-1]) <= result["timings"]["total"] + 0.1


@pytest.mark.parametrize("mode", ["full", pytest.param("tcg-virtio", marks=pytest.mark.long)])
def test_a_panic_is_seen_at_once(site: Site, mode: str) -> None:
    done = run(site, *script("echo c > /proc/sysrq-trigger; sleep 600", "--mode", mode))
    assert done.returncode == 125
    assert b"panicked" in done.stderr and b"Kernel panic - not syncing" in done.stderr
    assert runs_of(site) == []


def test_a_matrix_beside_each_other(site: Site, tmp_path: pathlib.Path) -> None:
    """Each combination has a machine of its own, three at a time; then all is as it was."""
    run(site, "nosuch", "--", "true")  # makes the store, where this is the first test
    before = census(site)
    text = 'echo "$PY here"; echo "$PY" > /tmp/py; printf tail >&2; exit ${PY#3.}'
    axes = ("--matrix", "PY=3.0,3.5", "--matrix", "mode=full,tcg-virtio", "--jobs", "3")
    done = run(site, *script(text, *axes, "--copy-out", f"/tmp/py:{tmp_path}"))
    assert done.returncode == 5, done.stderr
    labels = [f"[PY={py} mode={mode}]" for py in ("3.0", "3.5") for mode in ("full", "tcg-virtio")]
    lines = sorted(done.stdout.decode().splitlines())
    assert lines == sorted(f"{label} {label[4:7]} here" for label in labels)
    for label in labels:
        assert f"{label} tail" in done.stderr.decode()
        kept = tmp_path / label[1:-1].replace(" ", ",") / "py"
        assert kept.read_text() == f"{label[4:7]}\n"
    assert "STATUS" in done.stderr.decode()
    gone(site)
    assert grown(before, census(site)) == {}


def grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """Return what there is more of; what earlier tests left may go meanwhile."""
    slack = {"descriptors": 16}  # the daemon's: others may ask it something at this moment
    return {
        what: count for what, count in after.items() if count > before[what] + slack.get(what, 0)
    }


def census(site: Site) -> dict[str, int]:
    """Return how many things there are that a run could leave behind."""
    daemon = pathlib.Path("/run/libvirtd.pid")
    sockets = [*pathlib.Path("/run/vmctl").glob("*"), *pathlib.Path("/tmp/vmctl-0").glob("*")]
    number = daemon.read_text().strip() if daemon.exists() else ""
    found = {
        "files": sum(1 for path in site.home.rglob("*") if "locks" not in path.parts),
        "sockets": sum(1 for path in sockets if not path.name.startswith("lock-")),
        "processes": len(processes(site)),
        "domains": len(list(pathlib.Path("/run/libvirt/qemu").glob(f"run-{identity(site)}*"))),
    }
    if number:
        found["descriptors"] = len(os.listdir(f"/proc/{number}/fd"))
    return found


@pytest.mark.long
def test_what_failed_can_be_looked_into(site: Site) -> None:
    """The machine of a spec has a name of its own; where the job failed it stays, if asked for."""
    path, own = site.spec("mode: full\n")
    done = run(site, *script("echo why > /tmp/clue; exit 3", "--keep-on-failure", image=(path,)))
    assert done.returncode == 3
    (name,) = runs_of(site)
    site.claim(name)
    assert f"vmctl ssh {name}" in done.stderr.decode()
    assert (
        site.run("exec", name, "--", "sh", "-c", "cat /tmp/clue; hostname").out == f"why\n{own}\n"
    )
    assert own not in [one["name"] for one in site.run("ps", "--all", "--json").json]
    assert site.run("gc", "-n", name, "--json").json == []
    site.run("down", "-y", name)
    assert runs_of(site) == []


@pytest.mark.long
def test_a_guest_that_runs_guests(site: Site) -> None:
    """What the guest gets is tried inside before the job begins."""
    done = run(site, *script("test -w /dev/kvm && grep -c svm /proc/cpuinfo", "--nested"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nosuch", "--", "true"), "There is no image 'nosuch'"),
        (("tiny",), "There is no command to run"),
        (("./nosuch.yaml", "--", "true"), "There is no file './nosuch.yaml'"),
        (("tiny", "--env", "NOSUCH", "--", "true"), "no variable 'NOSUCH'"),
        (("tiny", "--copy-in", "/nosuch:/x", "--", "true"), "There is no '/nosuch'"),
        (("tiny", "--memory", "4", "--", "true"), "memory"),
        (("tiny", "--set", "networks=[]", "--", "true"), "no network"),
        (("tiny", "--matrix", "A", "--", "true"), "--matrix wants"),
        (("--nosuch", "tiny", "--", "true"), "--nosuch"),
        (("tiny", "--serial-log", "/nosuch/x", "--", "true"), "there is no directory '/nosuch'"),
        (("tiny", "--report", "/", "--", "true"), "The report '/' could not be written"),
        (("tiny", "--cpus", "0", "--", "true"), "--cpus: error:"),
        (("tiny", "--matrix", "moed=1", "--", "true"), "--matrix moed=…: error:"),
        (("tiny", "--jobs", "2", "--", "true"), "--jobs is for --matrix"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_made(
    site: Site, words: tuple[str, ...], said: str
) -> None:
    done = run(site, *words)
    assert done.returncode == 125
    assert said in done.stderr.decode()
    assert runs_of(site) == []


@pytest.mark.long
def test_a_user_whom_the_guest_does_not_know(site: Site) -> None:
    """It is told apart from a command that ends with the status of su."""
    done = run(site, *script("true", "--user", "nosuch", "--json"))
    assert done.returncode == 125
    (result,) = json.loads(done.stdout)["runs"]
    assert result["failed"] and "no user 'nosuch'" in result["error"]


@pytest.mark.long
def test_a_distribution(site: Site, debian: str, tmp_path: pathlib.Path) -> None:
    """With a disk, a seed, a host key that is known, and a login that is not root."""
    words = script(
        "id -un; sudo -n id -un; test -d /nosuch",
        *("--copy-out", f"/etc/hostname:{tmp_path}"),
        image=(debian, "--memory", "512MiB", "--disk", "6GiB"),
    )
    done = run(site, *words)
    assert (done.returncode, done.stdout) == (1, b"debian\nroot\n"), done.stderr
    assert (tmp_path / "hostname").read_text() == "run\n"
    gone(site)
    assert runs_of(site) == []


@pytest.mark.long
def test_five_after_one_another(site: Site) -> None:
    before = None
    for number in range(5):
        assert run(site, *script(f"exit {number}")).returncode == number
        gone(site)
        before = before or census(site)
        assert grown(before, census(site)) == {}


@pytest.mark.long
def test_much_output_takes_no_memory(site: Site) -> None:
    """Sixty MiB, and then silence for a while: neither is kept, nor taken for the end."""
    command = script(f"head -c {60 * MIB} /dev/zero; sleep 10; echo end >&2")
    with (
        subprocess.Popen(
            site.command("run", "-q", *command),
            env=site.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        assert process.stdout is not None and process.stderr is not None
        count = 0
        while piece := process.stdout.read1(MIB):
            count += len(piece)
            if count > 59 * MIB:
                status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
                peak = int(status.partition("VmHWM:")[2].split()[0])
                assert peak < 120 << 10
        assert count == 60 * MIB
        assert process.stderr.read() == b"end\n"
        assert process.wait(PATIENCE) == 0
