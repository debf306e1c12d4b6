#!/bin/sh
# Runs a command of this checkout on a Debian where nothing is installed, as a new user would:
#
#   tests/setup/fresh_debian.sh ./up
#   FRESH_AS=user tests/setup/fresh_debian.sh ./check --no-install
#
# Needs root, mmdebstrap and git. The root directory is made once and thrown away after each run
# (FRESH_KEEP=1 keeps it and the next run goes on in it). FRESH_AS=user runs as an ordinary user
# with sudo; FRESH_NET=none runs without a network. Uncommitted files are taken along.
set -eu

top=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
work=${FRESH_DIR:-/var/tmp/vmctl-fresh}
base=$work/bookworm.tar
root=$work/root

make_base() {
    [ ! -e "$base" ] || return 0
    mkdir -p "$work"
    mmdebstrap --quiet --variant=minbase --include=ca-certificates,sudo,git \
        bookworm "$work/unfinished.tar" /etc/apt/sources.list.d/debian.sources
    mv "$work/unfinished.tar" "$base"
}

# A network with its own certificate authority is not what is tried here, so the host's are taken.
make_root() {
    [ ! -e "$root/etc" ] || return 0
    mkdir -p "$root"
    tar -C "$root" --exclude './dev/*' -xf "$base"
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    cp /etc/ssl/certs/ca-certificates.crt "$root/usr/local/share/ca-certificates/host.crt"
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    for option in Acquire::Check-Valid-Until Acquire::Check-Date; do
        printf '%s "false";\n' "$option" >> "$root/etc/apt/apt.conf.d/99fresh"
    done
    chroot "$root" useradd --create-home --shell /bin/bash user
    echo 'user ALL=(ALL) NOPASSWD: ALL' > "$root/etc/sudoers.d/user"
    mkdir "$root/home/user/vmctl"
    (
        cd "$top"
        git ls-files -z --cached --others --exclude-standard |
            tar --null --files-from=- --ignore-failed-read -cf - 2> /dev/null
    ) | tar -C "$root/home/user/vmctl" -xf -
    chroot "$root" chown -R user:user /home/user/vmctl
}

# In namespaces of its own: what is mounted or started there ends with the command. The shell stays
# as their init and collects orphans; libvirt waits 40 s for each that nobody collects.
# shellcheck disable=SC2016  # expanded there, not here
inside='
set -e
root=$1 who=$2; shift 2
mount --bind "$root" "$root"; cd "$root"
mount --rbind /dev dev; mount -t proc proc proc; mount --rbind /sys sys
mount -t tmpfs tmpfs run; mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir tmp/host; pivot_root . tmp/host; umount -l /tmp/host; rmdir /tmp/host
exec 3<&0
su -s /bin/sh "$who" -c "cd /home/user/vmctl && exec \"\$0\" \"\$@\"" -- "$@" <&3 3<&- &
wait $!
'

make_base
[ -n "${FRESH_KEEP:-}" ] || rm -rf "$root"
make_root
namespaces='--mount --pid --fork --kill-child'
[ "${FRESH_NET:-}" != none ] || namespaces="$namespaces --net"
status=0
# shellcheck disable=SC2086
env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM="${TERM:-dumb}" \
    unshare $namespaces sh -c "$inside" sh "$root" "${FRESH_AS:-root}" "$@" || status=$?
[ -n "${FRESH_KEEP:-}" ] || rm -rf "$root"
exit "$status"
