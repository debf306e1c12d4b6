"""From files to machines: layers, --set, count, paths, places for later stages."""

import os

import pytest

from vmctl.spec import load, model, problems

GIB = 1 << 30


@pytest.fixture
def written(tmp_path):
    """Write a file of the lab and return its path."""
    directory = tmp_path / "lab"

    def write(text, name="vmctl.yaml"):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def messages(path, sets=(), **keywords):
    with pytest.raises(problems.SpecError) as caught:
        load.load(path, sets, **keywords)
    return [problem.message for problem in caught.value.problems]


def machines(path, *sets, **keywords):
    return {one.name: one for one in load.load(path, sets, **keywords).machines}


def test_the_defaults_of_a_machine(written):
    path = written("image: tiny\n")
    document = load.load(path)
    (machine,) = document.machines
    assert machine.name == document.project == "lab"
    assert machine.image == model.ImageSpec(name="tiny")
    assert (machine.mode, machine.accel, machine.devices) == ("auto", None, None)
    assert (machine.cpus, machine.cpus_max) == (1, None)
    assert (machine.memory, machine.memory_max, machine.disk) == (GIB, None, None)
    assert machine.networks == (model.NetworkSpec(kind=model.NetworkKind.USER),)
    assert (machine.firmware, machine.display, machine.ready) == ("bios", "none", None)
    assert document.text == b"image: tiny\n"
    assert document.path == path
    assert document.directory == path.parent.resolve()


def test_every_key_arrives(written):
    machine = machines(
        written(
            """
            name: web
            project: shop
            image: {path: d.qcow2, format: qcow2}
            mode: hardware
            cpus: 2
            memory: 512M
            disk: 2T
            disks: [{name: data, size: 10GiB, keep: true}]
            forwards: [{host: 1, guest: 65535, protocol: udp, host_address: 0.0.0.0}]
            networks: [{mac: 52:54:00:AA:BB:cc}]
            ready: {when: console, pattern: 'up \\d', timeout: 1.5m}
            nested: true
            """
        )
    )["web"]
    assert machine.mode is model.Mode.HARDWARE
    assert (machine.memory, machine.disk) == (512 << 20, 2 << 40)
    assert machine.disks == (model.DiskSpec(name="data", size=10 * GIB, keep=True),)
    assert machine.forwards[0].protocol is model.Protocol.UDP
    assert machine.networks[0].mac == "52:54:00:aa:bb:cc"
    assert machine.ready == model.ReadySpec(
        when=model.ReadyWhen.CONSOLE, pattern="up \\d", timeout=90.0
    )
    assert machine.nested is True


def test_values_stay_as_they_were_written(written):
    machine = machines(written("name: on\nimage: 12.10\ndescription: 22:22\nproject: no\n"))["on"]
    assert machine.image is not None
    assert (machine.image.name, machine.description) == ("12.10", "22:22")


def test_layers_are_laid_over_each_other(written):
    written("defaults: {memory: 1GiB, cpus: 8, ready: {timeout: 1m, pattern: base}}", "base.yaml")
    path = written(
        """
        base: base.yaml
        defaults: {image: tiny, cpus: 4, ready: {pattern: file}}
        vms:
          db:
          web: {cpus: 2, image: {path: a.raw, format: raw}, ready: {pattern: entry}}
        """
    )
    found = machines(path, "vms.web.memory=3GiB", "autostart=true")
    db, web = found["db"], found["web"]
    assert list(found) == ["db", "web"]
    assert (db.memory, db.cpus, db.ready.pattern, db.ready.timeout) == (GIB, 4, "file", 60.0)
    assert (web.memory, web.cpus, web.ready.pattern, web.ready.timeout) == (
        3 * GIB,
        2,
        "entry",
        60.0,
    )
    assert web.image.name == ""
    assert db.autostart
    assert web.autostart


def test_lists_are_replaced(written):
    path = written(
        "defaults: {image: tiny, networks: [{kind: nat}, {kind: user}]}\n"
        "vms: {a: {networks: []}, b: {}}\n"
    )
    assert [len(one.networks) for one in load.load(path).machines] == [0, 2]


def test_a_problem_below_a_layer_points_into_its_file(written):
    written("image: tiny\ncpus: none\n", "deep/base.yaml")
    path = written("base: deep/base.yaml\nmemory: 1\n")
    with pytest.raises(problems.SpecError) as caught:
        load.load(path)
    places = [(os.path.basename(one.file), one.line) for one in caught.value.problems]
    assert sorted(places) == [("base.yaml", 2), ("vmctl.yaml", 2)]


def test_bases_have_an_end(written):
    for number in range(20):
        written(f"base: b{number + 1}.yaml\nimage: tiny\n", f"b{number}.yaml")
    assert any("files deep" in one for one in messages(written("base: b0.yaml\n")))
    written("base: y.yaml\n", "x.yaml")
    assert any("same file" in one for one in messages(written("base: x.yaml\n", "y.yaml")))


def test_a_base_must_be_beside_the_spec(written, tmp_path):
    (tmp_path / "base.yaml").write_text("image: tiny\n")
    path = written("base: ../base.yaml\n")
    assert any("outside" in one for one in messages(path))
    assert machines(path, allow_outside=True)["lab"].image.name == "tiny"
    (path.parent / "link.yaml").symlink_to("../base.yaml")
    assert any("outside" in one for one in messages(written("base: link.yaml\n")))


def test_a_base_that_cannot_be_read_is_a_problem(written):
    path = written("base: sub\nimage: tiny\n")
    (path.parent / "sub").mkdir()
    assert any("is a directory" in one for one in messages(path))
    (path.parent / "pipe").mkdir()
    assert any("base must be the path" in one for one in messages(written("base: [x]\n")))


def test_files_are_found_beside_the_text_that_names_them(written):
    written("cdroms: [a.iso]\n", "sub/base.yaml")
    path = written("base: sub/base.yaml\nimage: {path: ./i/../d.raw, format: raw}\n")
    machine = machines(path)["lab"]
    top = path.parent.resolve()
    assert machine.cdroms == (str(top / "sub" / "a.iso"),)
    assert machine.image.path == str(top / "d.raw")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "link/x", "loop/../../x", ".", "a/../.."])
def test_files_outside_are_refused(written, name):
    path = written(f"cdroms: ['{name}']\nmemory: banana\n")
    (path.parent / "link").symlink_to("/usr")
    (path.parent / "loop").symlink_to("loop")
    found = messages(path)
    assert len(found) == 2
    assert any("outside of the spec's directory" in one for one in found)
    path.write_text(f"cdroms: ['{name}']\n")
    assert os.path.isabs(machines(path, allow_outside=True)["lab"].cdroms[0])


def test_count_makes_machines(written):
    path = written(
        "defaults: {image: tiny}\n"
        "vms: {w: {count: 3, needs: [db]}, db: , end: {needs: [w, w-2]}, one: {count: 1}}\n"
    )
    found = machines(path)
    assert list(found) == ["w-1", "w-2", "w-3", "db", "end", "one-1"]
    assert found["w-2"].needs == ("db",)
    assert found["end"].needs == ("w-1", "w-2", "w-3")


def test_there_is_a_limit_to_machines(written):
    path = written("defaults: {image: tiny, count: 999}\nvms: {a: , b: }\n")
    assert any("makes 1998 machines" in one for one in messages(path))
    many = "".join(f"  m{number}: {{image: tiny}}\n" for number in range(1001))
    assert any("more than 1000" in one for one in messages(written(f"vms:\n{many}")))


def test_sets(written):
    path = written("image: tiny\ndisks: [{name: a, size: 1G}]\n")
    found = machines(
        path,
        "name=web",
        "memory=2GiB",
        "disks.0.size=3GiB",
        "disks.1={name: b, size: 1GiB}",
        "ready.timeout=5m",
        "cdroms=[./a.iso]",
        "description=a: b, c",
        "image=debian-12",
        "project=other",
    )["web"]
    assert found.memory == 2 * GIB
    assert [(disk.name, disk.size >> 30) for disk in found.disks] == [("a", 3), ("b", 1)]
    assert found.ready.timeout == 300.0
    assert found.cdroms[0].endswith("/lab/a.iso")
    assert found.description == "a: b, c"
    assert found.image.name == "debian-12"
    assert load.load(path, ["project=other"]).project == "other"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("memory", "there is no '='"),
        ("=1", "'' is no path of keys"),
        ("a..b=1", "'a..b' is no path of keys"),
        ("a b=1", "'a b' is no path of keys"),
        ("a.b.c.d.e.f.g.h.i=1", "is no path of keys"),
        ("memory=banana", "memory must be a size"),
        ("memory=", "memory has no value"),
        ("memroy=1GiB", "unknown key 'memroy'"),
        ("vms.web.memory=1GiB", "the file has no 'vms'"),
        ("base=x.yaml", "'base' can only stand in a file"),
        ("name.x=1", "'name' is a single value and has no 'x'"),
        ("disks.5.size=1GiB", "there is no item 5 in 'disks'; it has 1"),
        ("disks.size=1GiB", "'disks' is a list"),
        ("description=a\nb", "control character"),
        ("description=\x1b[31m", "control character"),
        ("cdroms=[", "missing"),
        ('description="\\x1b"', "control character"),
        ("cdroms=[&a x]", "anchors"),
        ("cdroms=" + "[" * 100000, "nested more than"),
        ("x" * 100000 + "=1", "is no path of keys"),
        ("description=\ud800", "control character"),
        ("cdroms=[/etc/passwd]", "outside"),
    ],
)
def test_a_bad_set_says_so(written, argument, message):
    path = written("name: web\nimage: tiny\ndisks: [{name: a, size: 1G}]\n")
    with pytest.raises(problems.SpecError) as caught:
        load.load(path, [argument])
    assert any(message in one.message for one in caught.value.problems)
    for one in caught.value.problems:
        assert one.file.startswith("--set '")
        assert one.line == 0
    assert problems.render(caught.value.problems).isprintable() is False  # it has lines


def test_sets_for_several_machines(written):
    path = written("vms: {web: {image: tiny}, db: {image: tiny}}\n")
    found = machines(path, "mode=full", "vms.db.cpus=3", "defaults.memory=64MiB")
    assert {one.mode for one in found.values()} == {model.Mode.FULL}
    assert (found["db"].cpus, found["web"].cpus) == (3, 1)
    assert found["web"].memory == 64 << 20
    assert len(messages(path, ["mode=fast"])) == 1
    assert len(messages(path, ["memroy=1"])) == 1
    with pytest.raises(problems.SpecError) as caught:
        load.load(path, ["vms.wbe.cpus=1"])
    assert caught.value.problems[0].suggestion == "did you mean 'web'?"


def test_a_bad_value_in_the_file_counts_although_it_is_overridden(written):
    path = written("image: tiny\nmemory: banana\n")
    assert len(messages(path, ["memory=1GiB"])) == 1


@pytest.mark.parametrize(
    ("directory", "project"),
    [
        ("My Lab_2", "my-lab-2"),
        ("2024", "vm-2024"),
        ("..x..", "x"),
        ("123e4567-e89b-12d3-a456-426614174000", "vm-123e4567-e89b-12d3-a456-426614174000"),
        ("x" * 100, "x" * 63),
        ("a" + "-" * 80 + "b", "a-b"),
    ],
)
def test_the_project_is_named_after_the_directory(tmp_path, directory, project):
    path = tmp_path / directory / "vmctl.yaml"
    path.parent.mkdir()
    path.write_text("image: tiny\n")
    document = load.load(path)
    assert (document.project, document.machines[0].name) == (project, project)


def test_a_directory_without_a_name_for_a_project_is_a_problem(tmp_path):
    path = tmp_path / "日本" / "vmctl.yaml"
    path.parent.mkdir()
    path.write_text("name: web\nimage: tiny\n")
    assert "no project name" in messages(path)[0]
    path.write_text("name: web\nimage: tiny\nproject: lab\n")
    assert load.load(path).project == "lab"


def test_later_stages_get_places(written):
    path = written(
        "defaults: {mode: full}\nvms:\n  web:\n    image: tiny\n    disks:\n"
        "      - {name: a, size: 1G}\n  many: {image: x, count: 2}\n"
    )
    document = load.load(path, ["vms.web.cpus=2"])

    def place(*location, machine="web"):
        problem = document.problem(machine, location, "m", "s")
        return (problem.line, problem.column, problem.length)

    assert place("mode") == (1, 18, 4)
    assert place("image") == (4, 5, 5)
    assert place("image", "name") == (4, 12, 4)
    assert place("disks") == (5, 5, 5)
    assert place("disks", 0, "size") == (6, 25, 2)
    assert place("disks", 3) == (5, 5, 5)
    assert place("firmware") == (3, 3, 3)
    assert place("name") == (3, 3, 3)
    assert place("firmware", machine="many-2") == (7, 3, 4)
    assert place("cpus")[0] == 0
    single = load.load(written("image: tiny\n")).problem("lab", ("mode",), "m")
    assert (single.line, single.length) == (1, 0)


def test_a_great_many_problems_are_counted_and_shown_in_part(written):
    text = "image: tiny\n" + "".join(f"k{number}: 1\n" for number in range(5000))
    with pytest.raises(problems.SpecError) as caught:
        load.load(written(text))
    assert len(caught.value.problems) + caught.value.unseen == 5000
    assert len(problems.render(caught.value.problems).splitlines()) < 200


def test_machines_that_share_much_are_read_quickly(written):
    forwards = ", ".join(f"{{host: {n}, guest: 1}}" for n in range(1, 129))
    vms = "".join(f"  m{n}: \n" for n in range(1000))
    text = f"defaults:\n  image: tiny\n  forwards: [{forwards}]\nvms:\n{vms}"
    assert any("also forwarded by" in one for one in messages(written(text)))
