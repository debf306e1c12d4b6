"""Names, sizes, addresses: what is one and what only looks like one."""

import pytest
from pydantic_core import PydanticCustomError

from vmctl import sizes
from vmctl.spec import model, pattern, scalars
from vmctl.spec.nodes import Plain
from vmctl.spec.validation import similar

NAUGHTY = [
    "",
    ".",
    "..",
    "-dash",
    "dash-",
    "--help",
    "$(id)",
    "`id`",
    "a;id",
    "a b",
    "a\tb",
    "a\x7fb",
    "a\x00b",
    "a\nb",
    "a\n",
    'a"b',
    "a'b",
    "a<b",
    "a&b",
    "a/b",
    "../etc/passwd",
    "a\\b",
    "x" * 64,
    "x" * 5000,
    "\u202eabc",
    "1234",
    "0",
    "123e4567-e89b-12d3-a456-426614174000",
    "Web",
    "WEB",
    "a_b",
    "foo.bar",
    "ünï",
    "٣",
    "Ⅷ",
    "日本",
    "😀",
    "a%s",
    "{a}",
    "null\x00",
]


@pytest.mark.parametrize("name", NAUGHTY, ids=ascii)
def test_a_naughty_name_is_refused(name):
    for text in (name, Plain(name)):
        with pytest.raises(PydanticCustomError):
            scalars.label(text)


@pytest.mark.parametrize("name", ["a", "web", "web-1", "1a", "a--b", "x" * 63, "no", "null"])
def test_a_label_is_a_name(name):
    assert scalars.label(name) == name


@pytest.mark.parametrize("name", NAUGHTY, ids=ascii)
def test_a_label_made_of_anything_is_a_label(name):
    made = scalars.made_label(name)
    assert made == "" or scalars.label(made) == made


def field(owner, key, value):
    required = {"name": "a", "size": "1G"} if owner is model.DiskSpec else {}
    required |= {"host": Plain("1"), "guest": Plain("1")} if owner is model.ForwardSpec else {}
    return getattr(owner.model_validate(required | {key: value}), key)


@pytest.mark.parametrize(
    ("owner", "key", "written", "value"),
    [
        (model.MachineSpec, "memory", "512MiB", 512 << 20),
        (model.MachineSpec, "memory", "512M", 512 << 20),
        (model.MachineSpec, "memory", "4G", 4 << 30),
        (model.MachineSpec, "memory", "1T", 1 << 40),
        (model.MachineSpec, "memory", "65536K", 64 << 20),
        (model.MachineSpec, "disk", "1048576KiB", 1 << 30),
        (model.ReadySpec, "timeout", "90s", 90.0),
        (model.ReadySpec, "timeout", "5m", 300.0),
        (model.ReadySpec, "timeout", "1h", 3600.0),
        (model.ReadySpec, "timeout", "1.5s", 1.5),
        (model.ReadySpec, "timeout", "500ms", 0.5),
        (model.NetworkSpec, "mac", "52:54:00:12:34:5F", "52:54:00:12:34:5f"),
        (model.NetworkSpec, "address", "10.1.2.3", "10.1.2.3"),
        (model.ForwardSpec, "host", "65535", 65535),
        (model.MachineSpec, "cpus", "255", 255),
        (model.MachineSpec, "nested", "True", True),
        (model.ImageSpec, "name", "ubuntu-24.04", "ubuntu-24.04"),
    ],
)
def test_what_a_value_means(owner, key, written, value):
    assert field(owner, key, Plain(written)) == value


@pytest.mark.parametrize(
    ("owner", "key", "written"),
    [
        *((model.MachineSpec, "memory", bad) for bad in ("0M", "1MiB", "99999999T", "-1G", "1 G")),
        *((model.MachineSpec, "memory", bad) for bad in ("1GB", "1gib", "1B", "G", "1GiB\n", "٣G")),
        *((model.MachineSpec, "disk", bad) for bad in ("512", "1e3M", "0x10G", "1000000000G")),
        *((model.ReadySpec, "timeout", bad) for bad in ("0s", "25h", "90", "1d", "-1s", "1h30m")),
        *((model.ReadySpec, "timeout", bad) for bad in ("inf", "nans", "1e9s", ".5s")),
        *((model.NetworkSpec, "mac", bad) for bad in ("ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00")),
        *((model.NetworkSpec, "mac", bad) for bad in ("525400123456", "52-54-00-12-34-56", "x")),
        *((model.NetworkSpec, "mac", bad) for bad in ("52:54:00:12:34:5g", "52:54:00:12:34:56:78")),
        *((model.NetworkSpec, "address", bad) for bad in ("1.2.3", "1.2.3.256", "01.2.3.4", "::1")),
        *(
            (model.NetworkSpec, "address", bad)
            for bad in ("1.2.3.4.5", "1.2.3.4.", "1.2.3.4\n", "")
        ),
        *((model.NetworkSpec, "bridge", bad) for bad in ("", "br 0", "x" * 16, "-x", "a/b", "..")),
        *((model.ForwardSpec, "host", bad) for bad in ("0", "65536", "-1", "22:22", "1.0", "٣")),
        *((model.MachineSpec, "cpus", bad) for bad in ("0", "256", "two", "1e1", "9" * 5000, "+1")),
        *((model.MachineSpec, "nested", bad) for bad in ("yes", "1", "tRue", "on", "")),
        *((model.ImageSpec, "name", bad) for bad in ("..", "a/b", "A", "-a", "a..b", "x" * 64, "")),
        *((model.ImageSpec, "path", bad) for bad in ("", "a\nb", "x" * 2000, "~/x")),
        *((model.MachineSpec, "description", bad) for bad in ("a\nb", "x" * 501, "\x1b", "\x9b")),
    ],
)
def test_what_only_looks_like_a_value(owner, key, written):
    with pytest.raises(ValueError):
        field(owner, key, Plain(written))


def test_a_quoted_number_is_no_number():
    with pytest.raises(ValueError, match="without quotes"):
        field(model.MachineSpec, "cpus", "2")
    with pytest.raises(ValueError, match="true or false"):
        field(model.MachineSpec, "nested", "true")


@pytest.mark.parametrize("size", [1, 1024, 1 << 30, 3 << 29, 1 << 40])
def test_a_size_is_written_as_people_do(size):
    text = sizes.text(size)
    assert text in ("1 bytes", "1KiB", "1GiB", "1536MiB", "1TiB")


@pytest.mark.parametrize(
    "expression",
    [
        "login: $",
        "^tiny (ready|up)",
        "Welcome .*!",
        "[a-z]+ login:",
        r"\d+",
        "(?i)ok",
        "0600",
        "x?",
    ],
)
def test_a_plain_pattern_is_allowed(expression):
    assert pattern.objection(expression) == ""


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "(",
        "[",
        "*",
        "\\",
        "x" * 201,
        "(a+)+",
        "(a*)*$",
        "(a|a)*",
        "(a|b|ab)+",
        "a?" * 50,
        "(a|a)" * 30,
        ".*.*.*x",
        ".{0,999}.{0,999}.{0,999}x",
        "(?:(?:(?:){64}){64}){64}",
        "(?:(?:(?:){9999}){9999}){9999}",
        r"(a)\1",
        "(?=a)",
        "(?<=a)b",
        "(?P<x>a)(?(x)b|c)",
        "a{99999999999999999999}",
        "(" * 66 + ")" * 66 + "{5}",
    ],
)
def test_a_pattern_that_could_hang_is_refused(expression):
    assert pattern.objection(expression)


def test_a_suggestion_is_only_made_for_words():
    assert similar("memroy", ["memory"]) == "did you mean 'memory'?"
    assert similar("x" * 1_000_000, ["memory"]) == ""
