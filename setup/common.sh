# shellcheck shell=sh
# Shared by ./up, ./check and the scripts beside this one: words, time, the command line, the host.

say() { printf '%s\n' "$*"; }

# complain TEXT...: a sentence on standard error.
complain() { printf '%s\n' "$*" >&2; }

# give_up STATUS TEXT...: the statuses are vmctl's own: 2 usage, 5 the host lacks something.
give_up() {
    give_up_status=$1
    shift
    complain "$0: $*"
    exit "$give_up_status"
}

# Hundredths of a second since boot; unlike date(1) it costs no process.
now() {
    read -r now_text _ < /proc/uptime
    now_value=${now_text%.*}${now_text#*.}
}

# stage NAME COMMAND...: run the command and say how long it took; its status is the stage's.
stage() {
    stage_name=$1
    shift
    now
    stage_began=$now_value
    say "==> $stage_name"
    stage_status=0
    "$@" || stage_status=$?
    now
    stage_took=$((now_value - stage_began))
    stage_word=FAILED
    [ "$stage_status" -ne 0 ] || stage_word='done'
    printf '    %s: %s in %d.%02d s\n' \
        "$stage_name" "$stage_word" $((stage_took / 100)) $((stage_took % 100))
    return "$stage_status"
}

# find_program NAME: is it installed? Shells with built-in applets call absent programs present
# when they are asked with `command -v`, so PATH is walked here.
find_program() {
    find_rest=$PATH:/usr/local/sbin:/usr/sbin:/sbin
    while [ -n "$find_rest" ]; do
        find_directory=${find_rest%%:*}
        case $find_rest in *:*) find_rest=${find_rest#*:} ;; *) find_rest= ;; esac
        [ -f "$find_directory/$1" ] && [ -x "$find_directory/$1" ] && return 0
    done
    return 1
}

# find_distribution: set `distribution` (its full name) and `family` (a column of packages.txt).
find_distribution() {
    distribution="an unknown distribution"
    family=unknown
    [ -r /etc/os-release ] || return 0
    # shellcheck source=/dev/null
    distribution=$(. /etc/os-release && printf '%s' "${PRETTY_NAME:-${ID:-unknown}}")
    # ID_LIKE names relatives, the nearest first.
    # shellcheck source=/dev/null
    for find_id in $(. /etc/os-release && printf '%s %s' "${ID:-}" "${ID_LIKE:-}"); do
        case $find_id in
            debian | ubuntu) family=debian ;;
            fedora | rhel | centos) family=fedora ;;
            arch) family=arch ;;
            opensuse* | suse | sles) family=opensuse ;;
            *) continue ;;
        esac
        return 0
    done
}

require_host() {
    [ "$(uname -s)" = Linux ] || give_up 5 "vmctl runs on Linux; this is $(uname -s)."
    case $(uname -m) in
        x86_64 | amd64) ;;
        *) give_up 5 "vmctl runs on x86-64 hosts; this one is $(uname -m)." ;;
    esac
    find_distribution
}
