"""What starts a runner in a guest: scripts that get all secrets through the pipe of ssh.

Nothing of them is in the image, in the store of the host or on a command line of the host. In the
guest they lie below /run, which is memory, for root alone, and go before the first job begins.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

from vmctl.runner.ci.garm_terms import Bootstrap

MEMORY = "/run"
"""A file system in the guest's memory, where root alone makes files."""

PLACE = f"{MEMORY}/vmctl-garm"

_BEGIN = """#!/bin/sh
set -eu
umask 077
rm -rf {place}
mkdir -p {place}/scripts
cd {place}
# Where bash keeps long texts for a moment.
TMPDIR={place}
unpack() {{ base64 -d > "$1"; }}
"""

_END = """
printf '%s' "$GARM_TOKEN" > token
printf '%s' "$GARM_TOOLS_TOKEN" > tools-token
unset TMPDIR GARM_TOKEN GARM_TOOLS_TOKEN
setsid sh ./start < /dev/null > log 2>&1 &
"""

_START = """
umask 077
# In no environment, which the runner and its jobs would inherit.
token=$(cat token)
tools_token=$(cat tools-token)
rm -f token tools-token

# Who reads the guest's list of processes must not find the token there. Only busybox's wget, which
# reads no configuration, is told it by its command line.
with_token() { # WORDS... for wget
    if wget --version 2> /dev/null | grep -q -i 'gnu wget'; then
        {
            cat /etc/wgetrc 2> /dev/null
            printf '\\nheader = Authorization: Bearer %s\\n' "$token"
        } > wgetrc
        wget --config=wgetrc -q "$@"
        set -- $?
        rm -f wgetrc
        return "$1"
    fi
    wget -q --header "Authorization: Bearer $token" "$@"
}
fetch() { # PATH FILE
    if command -v curl > /dev/null; then
        printf 'header = "Authorization: Bearer %s"\\n' "$token" |
            curl -K - -fsS --retry 5 --retry-delay 5 --retry-connrefused \\
                -o "$2" "$GARM_METADATA_URL/$1"
    else
        with_token -O "$2" "$GARM_METADATA_URL/$1"
    fi
}
tell() { # STATUS MESSAGE
    echo "$1: $2"
    [ -n "$GARM_CALLBACK_URL" ] || return 0
    url=${GARM_CALLBACK_URL%/}
    url=${url%/status}/status
    body="{\\"status\\": \\"$1\\", \\"message\\": \\"$2\\"}"
    if command -v curl > /dev/null; then
        printf 'header = "Authorization: Bearer %s"\\n' "$token" |
            curl -K - -fsS --retry 5 --retry-delay 5 --retry-connrefused \\
                -H 'Content-Type: application/json' -d "$body" "$url" > /dev/null || true
    else
        with_token -O /dev/null --header 'Content-Type: application/json' \\
            --post-data "$body" "$url" || true
    fi
}
fail() {
    tell failed "$1"
    exit 1
}
as_runner() { # WORDS... for a shell
    if [ "$user" = root ]; then sh -c "$1"; else su -s /bin/sh -c "$1" "$user"; fi
}
trust() {
    [ -s ca.pem ] || return 0
    export CURL_CA_BUNDLE="$PWD/ca.pem"
    if command -v update-ca-certificates > /dev/null; then
        cp ca.pem /usr/local/share/ca-certificates/garm.crt
        chmod 644 /usr/local/share/ca-certificates/garm.crt
        update-ca-certificates > /dev/null && unset CURL_CA_BUNDLE
    fi
}
find_user() {
    user=$GARM_RUNNER_USER
    if ! id "$user" > /dev/null 2>&1; then
        useradd -m -s /bin/bash "$user" 2> /dev/null || user=root
        if [ "$user" != root ] && [ -d /etc/sudoers.d ]; then
            echo "$user ALL=(ALL) NOPASSWD: ALL" > /etc/sudoers.d/90-garm
            chmod 440 /etc/sudoers.d/90-garm
        fi
    fi
    home=$(sed -n "s/^$user:[^:]*:[^:]*:[^:]*:[^:]*:\\([^:]*\\):.*/\\1/p" /etc/passwd)
    home=${home:-/root}
}
# GARM with runner install templates has the script for each forge, GitHub and Gitea.
install_as_garm_says() {
    fetch install-script/ install || return 1
    [ -s install ] || return 1
    mv install "$home/.garm-install"
    chown "$user" "$home/.garm-install"
    chmod 700 "$home/.garm-install"
    forget_files
    as_runner "cd; ./.garm-install" || fail 'the install script of GARM failed'
    rm -f "$home/.garm-install"
}
# An older one hands out the files of a runner of GitHub's that is configured already.
install_just_in_time() {
    [ -n "$GARM_JIT" ] || fail 'this GARM has no install script, and no just-in-time configuration'
    runner=$home/actions-runner
    if [ ! -d "$runner" ]; then
        tell installing "downloading the runner"
        [ -n "$tools_token" ] && fail 'the runner is not public: put it into the image'
        curl -fsSL --retry 5 -o runner.tar.gz "$GARM_TOOLS_URL" || fail 'no runner to download'
        if [ -n "$GARM_TOOLS_SHA256" ]; then
            echo "$GARM_TOOLS_SHA256  runner.tar.gz" | sha256sum -c > /dev/null ||
                fail 'the runner is not what GitHub says'
        fi
        mkdir -p "$runner"
        tar -xzf runner.tar.gz -C "$runner"
        rm -f runner.tar.gz
        (cd "$runner" && ./bin/installdependencies.sh) || fail 'dependencies are missing'
    fi
    fetch credentials/runner "$runner/.runner" || fail 'no just-in-time configuration'
    fetch credentials/credentials "$runner/.credentials" || fail 'no credentials'
    fetch credentials/credentials_rsaparams "$runner/.credentials_rsaparams" || fail 'no key'
    chown -R "$user" "$runner"
    tell idle 'runner starts'
    forget
    as_runner "cd '$runner' && exec ./run.sh"
}
# The runner may become root, and its jobs with it.
forget_files() {
    rm -rf bootstrap.json scripts
}
forget() {
    forget_files
    token='' tools_token=''
}

trust
tell installing 'machine is up'
for script in scripts/*; do
    [ -f "$script" ] || continue
    chmod 700 "$script"
    "$script" || fail "the script ${script#scripts/} failed"
done
find_user
if [ -n "$GARM_START" ]; then
    "$GARM_START" "$PWD/bootstrap.json" || fail "$GARM_START failed"
elif ! install_as_garm_says; then
    install_just_in_time
fi
forget
"""


def script(bootstrap: Bootstrap) -> bytes:
    """Return the script that root runs; it leaves the start of the runner behind, and ends."""
    scripts = {f"scripts/{number:03}": text for number, text in _numbered(bootstrap.scripts)}
    packed = {
        "bootstrap.json": bootstrap.text,
        "ca.pem": bootstrap.ca,
        "start": _START.encode(),
        **scripts,
    }
    parts = [_BEGIN.format(place=PLACE)]
    parts += [f"unpack {path} <<'END'\n{_base64(text)}END\n" for path, text in packed.items()]
    return "".join([*parts, _END]).encode()


def _numbered(scripts: Mapping[str, bytes]) -> list[tuple[int, bytes]]:
    return list(enumerate(scripts.values()))


def _base64(text: bytes) -> str:
    return base64.encodebytes(text).decode() or "\n"
