# shellcheck shell=sh
# The virtualenv: vmctl itself, libvirt-python built for the system's libvirt, and for ./check the
# tools of the lints and tests. Needs common.sh. VMCTL_VENV names another place than .venv.

venv=${VMCTL_VENV:-$top/.venv}
case $venv in /*) ;; *) venv=$began_in/$venv ;; esac
venv_stamp_file=$venv/.vmctl-ready
venv_lock_file=$venv/.vmctl-lock

# The module imports fail on a Debian without python3-venv, the header is missing without python3-dev.
python_suits='
import ensurepip, os, sys, sysconfig, venv
header = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(not (sys.version_info >= (3, 11) and os.path.exists(header)))
'

# find_python: set `python` to an interpreter that can make the virtualenv and build for it.
find_python() {
    for python in python3 /usr/bin/python3 python3.11 python3.12 python3.13 python3.14; do
        "$python" -c "$python_suits" 2> /dev/null && return 0
    done
    python=
    return 1
}

# venv_usable: can what is there be installed into? So it can be one that somebody else made.
venv_usable() {
    pip --version > /dev/null 2>&1 && "$venv/bin/python" -c "$python_suits" 2> /dev/null
}

# stamp FOR: what the virtualenv was made from; a change in any of it means installing again.
stamp() {
    stamp_project=$(sha256sum < "$top/pyproject.toml")
    stamp_python=$("$venv/bin/python" -V 2>&1) || return 1
    stamp_libvirt=$(pkg-config --modversion libvirt 2> /dev/null) || return 1
    say "$1 $stamp_python libvirt-$stamp_libvirt ${stamp_project%% *} $top"
}

# venv_ready FOR: is it complete? One made for ./check serves ./up too.
venv_ready() {
    [ -r "$venv_stamp_file" ] || return 1
    ready_stamp=$(stamp check) || return 1
    read -r ready_found < "$venv_stamp_file" || return 1
    [ "$ready_found" = "$ready_stamp" ] && return 0
    [ "$1" = run ] && [ "$ready_found" = "run ${ready_stamp#check }" ]
}

pip() {
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0 "$venv/bin/python" -m pip "$@"
}

# prepare_venv: make it complete, or exit with 5 and say what to do.
prepare_venv() {
    if venv_ready "$needs"; then
        say "    $venv is up to date."
        return 0
    fi
    [ "$install" = yes ] ||
        give_up 5 "The virtualenv '$venv' is not ready and --no-install was given."
    if [ ! -e "$venv/pyvenv.cfg" ] && [ ! -e "$venv_lock_file" ] && [ -n "$(ls -A "$venv" 2>&-)" ]
    then
        give_up 2 "'$venv' exists and is no virtualenv; move it away or set VMCTL_VENV."
    fi
    mkdir -p "$venv" || give_up 5 "The directory '$venv' cannot be made."
    # In a subshell: its end lets go of the lock, before anything that stays running is started.
    (
        if ! flock -n 9; then
            say "    Waiting for another ./up or ./check that is working on $venv."
            flock -w 1800 9 || give_up 4 "'$venv' stayed locked for 30 minutes."
        fi
        venv_ready "$needs" && exit 0
        make_venv && install_into_venv
    ) 9> "$venv_lock_file"
}

make_venv() {
    rm -f "$venv_stamp_file"
    venv_usable && return 0
    find_python || give_up 5 "No Python 3.11 or newer with venv and headers was found."
    say "    Making $venv with $("$python" -V) ($python)."
    # The remains of one that was cut short or whose Python has gone; never the lock that is held.
    for remains in bin lib lib64 include pyvenv.cfg; do rm -rf "${venv:?}/$remains"; done
    "$python" -m venv "$venv" || give_up 5 "'$python -m venv $venv' failed."
}

install_into_venv() {
    install_libvirt_python || give_up 5 "libvirt-python could not be installed (pip's reasons are" \
        "above): either the package index cannot be reached or the compiler failed."
    say "    Installing vmctl and what it needs."
    if [ "$needs" = check ]; then install_what='.[dev]'; else install_what=.; fi
    (cd "$top" && pip install --quiet --editable "$install_what") ||
        give_up 5 "pip could not install vmctl (its reasons are above). Is the package index reachable?"
    stamp "$needs" > "$venv_stamp_file.new" && mv "$venv_stamp_file.new" "$venv_stamp_file"
}

# The binding knows the calls of the libvirt it was built with, so the same version fits best;
# newer bindings build with older libraries too, but not the other way round.
install_libvirt_python() {
    libvirt_version=$(pkg-config --modversion libvirt)
    say "    Installing libvirt-python for libvirt $libvirt_version (compiled here, takes a while)."
    libvirt_answer=$(pip install --quiet "libvirt-python==$libvirt_version" 2>&1) && return 0
    printf '%s\n' "$libvirt_answer" >&2
    case $libvirt_answer in
        *"from versions: none"*) return 1 ;;
        *"No matching distribution"*) ;;
        *) return 1 ;;
    esac
    say "    The index has no libvirt-python $libvirt_version; taking the newest."
    pip install --quiet libvirt-python
}
