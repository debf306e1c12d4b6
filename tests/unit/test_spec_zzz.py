"""Any bytes are a spec or a SpecError, soon; never anything else."""

import contextlib
import pathlib
import time

import hypothesis
import pytest
from hypothesis import strategies

from vmctl import shipped
from vmctl.spec import load, model, problems, source

SPECS = pathlib.Path(__file__).parent.parent / "data" / "specs"
SEEDS = [
    path.read_bytes()
    for path in [
        *sorted((SPECS / "good").glob("*.yaml")),
        *sorted((SPECS / "bad").glob("*.yaml")),
        *sorted(shipped.directory("templates").glob("*.yaml")),
    ]
]
PIECES = [
    b"'", b'"', b":", b": ", b"- ", b"[", b"]", b"{", b"}", b"&a ", b"*a", b"<<: ", b"!!x ", b"\t",
    b"\n", b"\r", b"\x00", b"\xff", b"\xed\xa0\x80", b"#", b"? ", b"|", b">", b"%", b"@", b"---\n",
    b"...", b"~", b"null", b"\xe2\x80\xa8", b"\xc2\x85", b"\xef\xbb\xbf", b"9" * 5000, b"no",
    b"22:22", b"vms:", b"defaults:", b"image: x\n", b"base: x\n", b"count: 9\n", b"name: ", b".inf",
]  # fmt: skip

quick = hypothesis.settings(
    deadline=None,
    max_examples=6000,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return tmp_path_factory.mktemp("lab") / "vmctl.yaml"


def is_read_or_refused(path, raw, sets=()):
    path.write_bytes(raw)
    begin = time.monotonic()
    document, error = outcome(path, sets)
    assert time.monotonic() - begin < 5
    if document is not None:
        assert document.machines
        assert document.project
        return
    assert error.problems
    report = problems.render(error.problems, unseen=error.unseen)
    assert not set("\x00\x1b\x7f\x9b") & set(report)
    assert report.encode()


def outcome(path, sets):
    try:
        return load.load(path, sets), None
    except problems.SpecError as error:
        return None, error


@quick
@hypothesis.given(raw=strategies.binary(max_size=400))
def test_any_bytes(spec, raw):
    is_read_or_refused(spec, raw)


@quick
@hypothesis.given(text=strategies.text(max_size=200))
def test_any_text(spec, text):
    is_read_or_refused(spec, text.encode("utf-8", "surrogatepass"))


@quick
@hypothesis.given(
    raw=strategies.lists(strategies.sampled_from(PIECES), max_size=40).map(b"".join),
)
def test_any_mixture_of_yaml(spec, raw):
    is_read_or_refused(spec, raw)


@quick
@hypothesis.given(data=strategies.data())
def test_damaged_specs(spec, data):
    raw = data.draw(strategies.sampled_from(SEEDS))
    for _ in range(data.draw(strategies.integers(1, 4))):
        start = data.draw(strategies.integers(0, len(raw)))
        stop = min(len(raw), start + data.draw(strategies.integers(0, 12)))
        piece = data.draw(strategies.sampled_from(PIECES) | strategies.binary(max_size=4))
        raw = raw[:start] + piece + raw[stop:]
    is_read_or_refused(spec, raw)


SCALARS = strategies.sampled_from(
    [
        "",
        "~",
        "x",
        "1",
        "-1",
        "tiny",
        "1GiB",
        "true",
        "'1'",
        '"a\\nb"',
        "a/../..",
        "full",
        "10.0.0.1",
    ]
) | strategies.text(strategies.characters(codec="ascii", categories=["L", "N"]), max_size=8)
OWNERS = [
    model.MachineSpec,
    model.ImageSpec,
    model.NetworkSpec,
    model.ForwardSpec,
    model.DiskSpec,
    model.ReadySpec,
]
KEYS = strategies.sampled_from(
    [
        *model.FILE_KEYS,
        *sorted({key for owner in OWNERS for key in owner.model_fields}),
        "mounts",
        "web",
        "db",
    ]
)
TREES = strategies.recursive(
    SCALARS,
    lambda inner: (
        strategies.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | strategies.dictionaries(KEYS, inner, max_size=6).map(
            lambda entries: "{" + ", ".join(f"{key}: {item}" for key, item in entries.items()) + "}"
        )
    ),
    max_leaves=20,
)


@quick
@hypothesis.given(
    tree=strategies.dictionaries(KEYS, TREES, max_size=8),
    sets=strategies.lists(
        strategies.tuples(
            strategies.lists(KEYS | strategies.sampled_from(["0", "1"]), min_size=1, max_size=4),
            TREES,
        ).map(lambda pair: f"{'.'.join(pair[0])}={pair[1]}"),
        max_size=3,
    ),
)
def test_any_tree_of_known_keys(spec, tree, sets):
    raw = "".join(f"{key}: {value}\n" for key, value in tree.items()).encode()
    is_read_or_refused(spec, raw, sets)


@quick
@hypothesis.given(argument=strategies.text(max_size=60))
def test_any_set(spec, argument):
    is_read_or_refused(spec, b"name: web\nimage: tiny\n", [argument])


@quick
@hypothesis.given(raw=strategies.lists(strategies.sampled_from(PIECES), max_size=40).map(b"".join))
def test_the_slow_parser_refuses_likewise(raw):
    fast = source._FAST
    source._FAST = None
    try:
        with contextlib.suppress(problems.SpecError):
            source.parse(raw, "t.yaml")
    finally:
        source._FAST = fast
