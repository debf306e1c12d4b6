# shellcheck shell=sh
# System packages: what is missing, what it is for, and how it is installed. Needs common.sh.

newline='
'

# present PROBE: does the system have it? The kinds of probe are explained in packages.txt.
present() {
    case $1 in
        /*) any_file "$1" ;;
        pkg-config:*) find_program pkg-config && pkg-config --exists "${1#pkg-config:}" ;;
        python) venv_ready "$needs" || venv_usable || find_python ;;
        *) find_program "$1" ;;
    esac
}

# any_file GLOB,GLOB...: does a file match one of the patterns?
any_file() {
    any_rest=$1
    while [ -n "$any_rest" ]; do
        for any_match in ${any_rest%%,*}; do
            [ -e "$any_match" ] && return 0
        done
        case $any_rest in *,*) any_rest=${any_rest#*,} ;; *) any_rest= ;; esac
    done
    return 1
}

# wanted FOR: is this kind of line wanted by the present command? `needs` is run or check.
wanted() {
    case $1 in
        run) return 0 ;;
        check | extra) [ "$needs" = check ] ;;
        *) return 1 ;;
    esac
}

# find_missing: set `missing` (package names), `missing_extra`, and `missing_list` (for people).
find_missing() {
    missing=
    missing_extra=
    missing_list=
    while read -r row_for row_probe row_debian row_fedora row_arch row_opensuse row_reason; do
        wanted "$row_for" || continue
        present "$row_probe" && continue
        row_packages=
        case $family in
            debian) row_packages=$row_debian ;;
            fedora) row_packages=$row_fedora ;;
            arch) row_packages=$row_arch ;;
            opensuse) row_packages=$row_opensuse ;;
            *) row_packages="(${row_probe#pkg-config:})" ;;
        esac
        # What the distribution does not carry is no reason to stop where it is only an extra.
        if [ "$row_packages" = - ]; then
            [ "$row_for" = extra ] && continue
            row_packages="(${row_probe#pkg-config:})"
        fi
        add_missing "$row_for" "$(printf '%s' "$row_packages" | tr , ' ')" "$row_reason"
    done < "$top/setup/packages.txt"
}

# add_missing FOR "PACKAGE..." REASON
add_missing() {
    for add_name in $2; do
        case " $missing $missing_extra " in
            *" $add_name "*) continue ;;
        esac
        if [ "$1" = extra ]; then
            missing_extra="$missing_extra $add_name"
        else
            missing="$missing $add_name"
        fi
        missing_list=$missing_list$(printf '      %-28s %s' "$add_name" "$3")$newline
    done
}

# by_hand: say the command that would install what is missing here.
by_hand() {
    case $family in
        debian) say "sudo apt-get install --no-install-recommends$missing$missing_extra" ;;
        fedora) say "sudo dnf install$missing$missing_extra" ;;
        arch) say "sudo pacman -S --needed$missing$missing_extra" ;;
        opensuse) say "sudo zypper install$missing$missing_extra" ;;
        *) say "your package manager, with the packages that hold these" ;;
    esac
}

# as_root COMMAND...: run it as root, through sudo where that is needed.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0 \
        -o DPkg::Lock::Timeout=300 "$@"
}

# apt_knows PACKAGE...: can these be installed, as far as the package lists on this machine say?
apt_knows() { apt-get install --simulate --no-install-recommends "$@" > /dev/null 2>&1; }

# Another source that fails (a vendor's, a removed one) must not stop this: what counts is whether
# the packages can be had afterwards.
apt_update() {
    apt update || complain "    A package source failed; going on with those that answered."
    apt_updated=yes
}

apt_install() {
    apt_updated=no
    # shellcheck disable=SC2086  # the names are words on purpose
    apt_knows $missing || apt_update
    for install_name in $missing_extra; do
        if apt_knows "$install_name"; then
            missing="$missing $install_name"
        else
            say "    Left out: $distribution does not offer '$install_name'."
        fi
    done
    [ -n "$missing" ] || return 0
    # shellcheck disable=SC2086
    apt install -y --no-install-recommends $missing && return 0
    [ "$apt_updated" = no ] || return 1
    # Lists that are too old name files which the mirror no longer has.
    apt_update
    # shellcheck disable=SC2086
    apt install -y --no-install-recommends $missing
}

# install_packages: make the system complete, or exit with 5 and say what to do.
install_packages() {
    find_missing
    if [ -z "$missing$missing_extra" ]; then
        say "    Everything is there."
        return 0
    fi
    say "    Missing on $distribution:"
    printf '%s' "$missing_list"
    if [ "$install" = no ]; then
        [ -n "$missing" ] || return 0
        give_up 5 "Nothing was installed (--no-install). To install it: $(by_hand)"
    fi
    if [ "$family" != debian ]; then
        [ -n "$missing" ] || return 0
        give_up 5 "vmctl installs packages on Debian and Ubuntu only." \
            "Please install these yourself, then run this command again: $(by_hand)"
    fi
    if [ "$(id -u)" -ne 0 ] && ! find_program sudo; then
        give_up 5 "Installing needs root and there is no sudo. As root: $(by_hand | sed 's/^sudo //')"
    fi
    apt_install || give_up 5 "apt-get could not install the packages; its reasons are above." \
        "Usual ones: no network, a package source that has gone, a dpkg that was interrupted" \
        "(sudo dpkg --configure -a). Put it right, then run this command again."
    install_verify
}

# Installed is not always enough: an old release has an old Python, and files can have been removed.
install_verify() {
    find_missing
    [ -n "$missing" ] || return 0
    printf '%s' "$missing_list" >&2
    give_up 5 "The packages are installed, but what vmctl looks for is not there. Either" \
        "$distribution is too old for vmctl or files are missing: apt-get install --reinstall$missing"
}
