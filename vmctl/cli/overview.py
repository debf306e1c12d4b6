"""Which commands there are: the table behind `vmctl --help`, kept free of imports.

`vmctl --help` is answered from here alone, without click: importing click takes longer than
everything else that a help page needs.
"""

from __future__ import annotations

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Machines": {
        "up": ("vmctl.cli.lifecycle:up", "Make machines run as their spec says."),
        "down": ("vmctl.cli.lifecycle:down", "Remove machines and what was created for them."),
        "start": ("vmctl.cli.lifecycle:start", "Start machines that exist."),
        "stop": ("vmctl.cli.lifecycle:stop", "Shut machines down; everything is kept."),
        "restart": ("vmctl.cli.lifecycle:restart", "Stop machines and start them again."),
        "pause": ("vmctl.cli.lifecycle:pause", "Freeze machines in memory."),
        "resume": ("vmctl.cli.lifecycle:resume", "Let paused machines go on."),
        "wait": ("vmctl.cli.lifecycle:wait", "Wait until machines are ready."),
    },
    "Domains of others": {
        "adopt": ("vmctl.cli.adopt:adopt", "Take a domain that virsh or virt-install made."),
        "release": ("vmctl.cli.adopt:release", "Let go of a machine without touching it."),
    },
    "Look": {
        "ps": ("vmctl.cli.look:ps", "List machines."),
        "top": ("vmctl.cli.top:top", "Show what machines use: CPU, memory, disk, network."),
        "status": ("vmctl.cli.look:status", "Show one machine: state, addresses, drift."),
        "logs": ("vmctl.cli.look:logs", "Show what a machine wrote to its console."),
        "console": ("vmctl.cli.look:console", "Connect to a machine's serial console."),
        "render": ("vmctl.cli.look:render", "Print the domain XML of a spec; changes nothing."),
        "diff": ("vmctl.cli.diff:diff", "Show how machines differ from their spec."),
        "validate": ("vmctl.cli.spec:validate", "Check a spec and show every problem in it."),
    },
    "Inside": {
        "ssh": ("vmctl.cli.access:ssh", "Log in to a machine."),
        "exec": ("vmctl.cli.access:exec_", "Run a command in a machine, word for word."),
        "cp": ("vmctl.cli.access:cp", "Copy files into a machine and out of it."),
        "ssh-config": ("vmctl.cli.access:ssh_config", "Print what ~/.ssh/config can include."),
    },
    "Snapshots": {
        "snapshot": ("vmctl.cli.snapshot:snapshot", "Keep points in a machine's life; go back."),
        "backup": ("vmctl.cli.backup:backup", "Copy disks while machines run; restore, verify."),
        "clone": ("vmctl.cli.clone:clone", "Make a machine of a stopped one's disks."),
        "commit": ("vmctl.cli.clone:commit", "Make an image of a stopped machine's system disk."),
        "save": ("vmctl.cli.save:save", "Write machines' memory to disk; start goes on from it."),
    },
    "Host": {
        "gc": ("vmctl.cli.gc:gc", "Find and clear what killed commands left behind."),
        "doctor": ("vmctl.cli.doctor:doctor", "Find out which modes this host can run, and why."),
    },
    "Lab": {
        "compare": ("vmctl.cli.compare:compare", "Measure the modes against each other, here."),
        "explain": ("vmctl.cli.explain:explain", "Tell what a mode is made of, down to QEMU."),
    },
    "CI systems": {
        "run": ("vmctl.cli.runs:run", "Run one command in a machine of its own."),
        "pool": ("vmctl.cli.pool:pool", "Keep machines warm, so that runs begin at once."),
        "gitlab": ("vmctl.cli.gitlab:gitlab", "Be the custom executor of a GitLab Runner."),
        "garm": ("vmctl.cli.garm:garm", "Be a GARM provider: runners of GitHub, Gitea, Forgejo."),
    },
    "Images": {
        "image": ("vmctl.cli.image:image", "Build, list and inspect base images."),
    },
    "Spec": {
        "init": ("vmctl.cli.spec:init", "Write a commented starter spec."),
        "schema": ("vmctl.cli.spec:schema", "Print the JSON Schema of a spec, for editors."),
    },
    "Shell": {
        "completion": (
            "vmctl.cli.completion:completion",
            "Print the completion script of a shell.",
        ),
    },
}
"""Section, then command, then where it is (module:attribute) and its line in the help."""

JSON_IS_A_FILE = frozenset({"compare"})
"""The commands whose --json names a file to write; that of all others fills standard output."""

OPTIONS = (
    ("-c, --connect URI", "Libvirt connection; default: $LIBVIRT_DEFAULT_URI, else"),
    ("", "qemu:///system for root, qemu:///session for others."),
    ("-q, --quiet", "Say only what failed or needs attention."),
    ("--debug", "Show tracebacks."),
    ("--version", "Print the version and exit."),
    ("-h, --help", "Print this page and exit; also after a command."),
)
"""The options before the command, as the help shows them; `app` declares the same ones to click."""


def names() -> list[str]:
    """Every command, in the order of the help."""
    return [name for commands in SECTIONS.values() for name in commands]


def place(name: str) -> str | None:
    """Return where the command `name` is, as module:attribute, or None."""
    for commands in SECTIONS.values():
        if name in commands:
            return commands[name][0]
    return None


def line(name: str) -> str:
    """Return what the help says about the command `name`."""
    return next(commands[name][1] for commands in SECTIONS.values() if name in commands)


def text() -> str:
    """Return the page that `vmctl --help` prints."""
    lines = [
        "Usage: vmctl [OPTIONS] COMMAND [ARGUMENTS]",
        "",
        "  From a short YAML file to a running virtual machine.",
    ]
    for section, commands in SECTIONS.items():
        lines += ["", f"{section}:"]
        lines += [f"  {name:<12}{help_line}" for name, (_place, help_line) in commands.items()]
    lines += ["", "Options, before the command or after it:"]
    lines += [f"  {option:<20}{help_line}" for option, help_line in OPTIONS]
    lines += ["", "'vmctl COMMAND --help' says more about a command."]
    return "\n".join(lines)
