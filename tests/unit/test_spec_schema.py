"""The schema that editors use and the loader agree."""

import json
import pathlib
import re

import jsonschema
import pytest

from vmctl import shipped
from vmctl.spec import load, nodes, problems, schema, source

SPECS = pathlib.Path(__file__).parent.parent / "data" / "specs"
SCHEMA = schema.schema()
BEYOND = {
    "address": "which address fits which kind of network",
    "anchors": "not even read",
    "base-bad": "wrong in another file",
    "base-loop": "wrong in another file",
    "base-missing": "wrong in another file",
    "base-outside": "where files lie",
    "conflicts": "several keys against each other",
    "guest-together": "several keys of the guest against each other",
    "duplicates": "gone once the text is read",
    "existing-disks": "which keys exclude each other",
    "escaped-control": "refused before any key is looked at",
    "image": "which keys exclude each other",
    "modes": "several keys against each other",
    "names": "what count makes of names",
    "needs": "machines against each other",
    "nothing": "what a machine needs at least",
    "outside": "where files lie",
    "resources-together": "limits against memory and networks",
    "together": "machines against each other",
}
"""Bad specs whose fault a schema cannot express (or shares with one that it can)."""


def core(node):
    """A tree as YAML 1.2 core reads it: what an editor holds against the schema."""
    if isinstance(node, nodes.Mapping):
        return {key: core(entry.node) for key, entry in node.entries.items()}
    if isinstance(node, nodes.Sequence):
        return [core(item) for item in node.items]
    if node.null:
        return None
    if node.plain and node.value.lower() in ("true", "false"):
        return node.value.lower() == "true"
    if node.plain and re.fullmatch(r"-?[0-9]+", node.value):
        return int(node.value)
    return node.value


def fits(path):
    tree = core(source.read(path).root)
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(tree)


def readable(path):
    try:
        source.read(path)
    except problems.SpecError:
        return False
    return True


BAD = [path for path in sorted((SPECS / "bad").glob("*.yaml")) if readable(path)]
GOOD = [
    *sorted((SPECS / "good").glob("*.yaml")),
    *sorted(shipped.directory("templates").glob("*.yaml")),
]


def test_it_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(schema.text()) == SCHEMA


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_spec_fits(path):
    assert fits(path)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_spec_does_not_fit(path):
    if path.stem not in BEYOND:
        assert not fits(path)


def test_what_a_schema_cannot_express_is_named_and_there():
    assert set(BEYOND) <= {path.stem for path in BAD}


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC6I19JCrsT/bHQ7gzr0BoR8v7YVnXUWh47Nl5skD4YV"

LINES = [
    ("cpus: 2", True),
    ("cpus: 0", False),
    ("cpus: 256", False),
    ("cpus: '2'", False),
    ("cpus: two", False),
    ("cpus: [2]", False),
    ("cpus: true", False),
    ("cpus:", False),
    ("cpus_max: 2", True),
    ("cpus_max: 0", False),
    ("cpus_max: 1.5", False),
    ("memory: 1GiB", True),
    ("memory: 1G", True),
    ("memory: 1GB", False),
    ("memory: 1073741824", False),
    ("memory: {size: 1}", False),
    ("memory: ~", False),
    ("disk: 1T", True),
    ("mode: auto", True),
    ("mode: fast", False),
    ("mode: Full", False),
    ("accel: kvm", True),
    ("accel: xen", False),
    ("devices: virtio", True),
    ("image: {name: tiny}", True),
    ("image: {path: a.raw, format: raw}", True),
    ("image: {path: a.raw, format: vmdk}", False),
    ("image: {url: 'https://example.org'}", False),
    ("image: A B", False),
    ("image: [a]", False),
    ("image:", False),
    ("disks: [{name: a, size: 1G}]", True),
    ("disks: [{name: a, size: 1G, keep: true}]", True),
    ("disks: [{name: a, path: ./a.qcow2, format: qcow2}]", True),
    ("disks: [{name: a, path: ./a.vmdk, format: vmdk}]", False),
    ("chipset: pc", True),
    ("chipset: i440fx", False),
    ("networks: [{kind: network, network: default}]", True),
    ("disks: [{name: a, size: 1G, keep: yes}]", False),
    ("disks: [{name: A, size: 1G}]", False),
    ("disks: {name: a, size: 1G}", False),
    ("disks: [a]", False),
    ("disks: [" + ", ".join(f"{{name: d{n}, size: 1G}}" for n in range(17)) + "]", False),
    ("cdroms: [a.iso]", True),
    ("cdroms: ['']", False),
    ("cdroms: [~]", False),
    ("cdroms: a.iso", False),
    ("networks: []", True),
    ("networks: [{}]", True),
    ("networks: [{kind: nat, mac: '52:54:00:00:00:01', address: 10.0.0.1}]", True),
    ("networks: [{kind: vlan}]", False),
    ("networks: [{mac: x}]", False),
    ("networks: [{kind: nat, address: 1.2.3}]", False),
    ("networks: [{kind: bridge, bridge: br0}]", True),
    ("networks: [{kind: bridge, bridge: 'br 0'}]", False),
    ("resources: {}", True),
    ("resources:", False),
    ("resources: {cpu_weight: 10000, cpu_quota: 150%, cpuset: '0-1,3', io_weight: 100}", True),
    ("resources: {cpu_weight: 0}", False),
    ("resources: {cpu_weight: 100%}", False),
    ("resources: {cpu_quota: 0%}", False),
    ("resources: {cpu_quota: 150}", False),
    ("resources: {cpu_quota: '50%'}", True),
    ("resources: {cpuset: 0}", True),
    ("resources: {cpuset: ^1}", False),
    ("resources: {cpuset: '0-'}", False),
    ("resources: {memory_limit: 2GiB}", True),
    ("resources: {io_weight: 99}", False),
    ("resources: {io_weight: 1001}", False),
    ("resources: {disk_read_iops: 1, disk_write_iops: 1}", True),
    ("resources: {disk_read_rate: 1KiB, disk_write_rate: 1MiB}", True),
    ("resources: {disk_read_rate: 1}", False),
    ("networks: [{kind: nat}]\nresources: {net_rate: 1MiB}", True),
    ("resources: {net_rate: fast}", False),
    ("forwards: [{host: 1, guest: 65535}]", True),
    ("forwards: [{host: 0, guest: 1}]", False),
    ("forwards: [{host: 1, guest: 65536}]", False),
    ("forwards: [{host: 1}]", False),
    ("forwards: ['80:80']", False),
    ("forwards: [{host: 1, guest: 1, protocol: sctp}]", False),
    ("forwards: [{host: 1, guest: 1, host_address: localhost}]", False),
    ("nested: true", True),
    ("nested: yes", False),
    ("nested: 1", False),
    ("ready: {}", True),
    ("ready: {when: running, timeout: 5m}", True),
    ("ready: {when: agent}", True),
    ("ready: {when: ssh}", True),
    ("ready: {when: cloud-init}", True),
    ("ready: {when: later}", False),
    ("ready: {pattern: ''}", False),
    ("ready: {timeout: 5}", False),
    ("ready: 5m", False),
    ("firmware: uefi-secure", True),
    ("firmware: efi", False),
    ("tpm: true", True),
    ("display: vnc", True),
    ("display: spice", False),
    ("autostart: false", True),
    ("description: some text", True),
    ('description: "two\\nlines"', False),
    ("count: 999", True),
    ("count: 1000", False),
    ("needs: []", True),
    ("needs: x", False),
    ("project: lab", True),
    ("project: La b", False),
    ("project: '123'", False),
    ("name: web-1", True),
    ("name: '-web'", False),
    ("name: 123e4567-e89b-12d3-a456-426614174000", False),
    ("mounts: []", True),
    ("mounts: [{host: ./src, guest: /src}]", True),
    ("mounts: [{host: ./src, guest: src}]", False),
    ("mounts: [{host: ./src}]", False),
    ("hostname: Web-1.example.org", True),
    ("hostname: -web", False),
    ("hostname: web_1", False),
    ("user: dev_1", True),
    ("user: Dev", False),
    ("user: 1st", False),
    ("ssh_keys: [./id.pub]", True),
    (f"ssh_keys: [{KEY}]", True),
    ("ssh_keys: ./id.pub", False),
    ("cloud_init: {packages: [nginx], anything: {at: all}}", True),
    ("cloud_init: {}", True),
    ("cloud_init: [a]", False),
    ("user_data: ./user-data", True),
    ("user_data: {}", False),
    ("provision: [{run: ./setup.sh}]", True),
    ("provision: [{script: 'echo hi', name: say, user: dev, env: {A: b}}]", True),
    ("provision: [{script: hi, env: {1A: b}}]", False),
    ("provision: [{script: hi, sudo: true}]", False),
    ("boot: kernel", True),
    ("boot: grub", False),
    ("networks: [{kind: bridge, bridge: br0, address: 10.0.0.2/24, gateway: 10.0.0.1}]", True),
    ("networks: [{kind: bridge, bridge: br0, address: 10.0.0.2/31}]", False),
    ("memroy: 1G", False),
    ("defaults: {}", False),
    ("vms: {a: {image: x}}", False),
]


@pytest.mark.parametrize(("line", "good"), LINES, ids=[line[:40] for line, _ in LINES])
def test_loader_and_schema_agree_on_a_line(tmp_path, line, good):
    path = tmp_path / "vmctl.yaml"
    path.write_text(f"{'' if line.startswith('image') else 'image: tiny'}\n{line}\n")
    try:
        load.load(path)
        loaded = True
    except problems.SpecError:
        loaded = False
    assert (loaded, fits(path)) == (good, good)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("vms: {a: {image: x}}", True),
        ("vms: {a: , b: {}}\ndefaults: {image: x}", True),
        ("vms: {a: {image: x, memory: 1}}", False),
        ("vms: {A: {image: x}}", False),
        ("vms: {'1': {image: x}}", False),
        ("vms: {a: []}", False),
        ("vms: {}", False),
        ("vms: []", False),
        ("vms:", False),
        ("vms: {a: {image: x, name: b}}", False),
        ("vms: {a: {image: x, vms: {}}}", False),
        ("vms: {a: {image: x}}\nmemory: 1GiB", False),
        ("vms: {a: {image: x}}\ndefaults: {memory: 1}", False),
        ("vms: {a: {image: x}}\ndefaults: {name: x}", False),
        ("vms: {a: {image: x}}\ndefaults:", False),
        ("vms: {a: {image: x}}\nproject: shop", True),
        ("{}", False),
    ],
)
def test_loader_and_schema_agree_on_a_file(tmp_path, text, good):
    path = tmp_path / "vmctl.yaml"
    path.write_text(text + "\n")
    try:
        load.load(path)
        loaded = True
    except problems.SpecError:
        loaded = False
    assert loaded is good
    if text != "{}":  # that something must be there to start from is beyond the schema
        assert fits(path) is good
