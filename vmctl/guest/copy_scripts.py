"""What runs in the guest at the other end of a copy: POSIX sh, and the tar of GNU or of busybox."""

from __future__ import annotations

_WHICH_TAR = """
case $(tar --version 2> /dev/null) in
    *GNU*) tar=gnu ;;
    *) tar=other ;;
esac
"""

# Says in its first line what there is, then sends the archive. A link that was named is followed,
# links below a directory are kept.
SEND = (
    _WHICH_TAR
    + """
path=$1
case $path in
    '~/'*) path=${path#'~/'} ;;
    '~' | '') path=. ;;
esac
case $path in
    /*) ;;
    *) path=./$path ;;
esac
options=
if [ $tar = gnu ]; then options='--format=gnu --sparse --numeric-owner --hard-dereference'; fi
if [ -d "$path" ]; then
    cd -- "$path" || exit
    echo directory
    exec tar -c $options -f - .
elif [ -f "$path" ]; then
    cd -- "${path%/*}/" || exit
    echo file
    exec tar -c -h $options -f - "./${path##*/}"
elif [ -e "$path" ]; then
    echo special
else
    echo missing
fi
"""
)

# Takes an archive whose entries lie under tree/, with the empty file 'complete' at its end, into a
# directory beside the target, and moves them when all of it has come.
RECEIVE = (
    _WHICH_TAR
    + """
target=$1 several=$2 name=$3
case $target in
    '~/'*) target=${target#'~/'} ;;
    '~' | '') target=. ;;
esac
case $target in
    /*) ;;
    *) target=./$target ;;
esac
if [ -d "$target" ]; then
    parent=$target
else
    case $several$target in
        several* | */)
            echo "not-a-directory"
            exit
            ;;
    esac
    parent=${target%/*}/
    name=${target##*/}
    if [ ! -d "$parent" ]; then
        echo "no-parent"
        exit
    fi
fi
place=$(umask 077 && mktemp -d "$parent/.vmctl-XXXXXX") || exit
trap 'rm -rf "$place"' EXIT
trap 'exit 130' HUP INT TERM PIPE

# Moves what is in directory $1 into directory $2, many files with one mv.
merge() (
    from=$1 to=$2
    set --
    for entry in "$from"/* "$from"/.[!.]* "$from"/..?*; do
        if [ ! -e "$entry" ] && [ ! -L "$entry" ]; then continue; fi
        there=$to/${entry##*/}
        if [ -L "$there" ]; then
            rm -f "$there"
        elif [ -d "$entry" ] && [ ! -L "$entry" ] && [ -e "$there" ]; then
            if [ -d "$there" ]; then
                merge "$entry" "$there" || exit
                continue
            fi
            echo "'$there' is there already and is no directory" >&2
            exit 1
        elif [ -d "$there" ]; then
            echo "'$there' is there already and is a directory" >&2
            exit 1
        fi
        set -- "$@" "$entry"
        if [ $# -ge 200 ]; then
            mv -f -- "$@" "$to/" || exit
            set --
        fi
    done
    if [ $# -gt 0 ]; then mv -f -- "$@" "$to/" || exit; fi
)

echo "ready-$tar"
tar -x -p -o -f - -C "$place" || exit
if [ ! -e "$place/complete" ]; then
    echo "the archive ended too early" >&2
    exit 1
fi
if [ -z "$3" ]; then
    if [ "$parent" != "$target" ]; then mkdir "$target" || exit; fi
    parent=$target
elif [ "$name" != "$3" ]; then
    mv -- "$place/tree/$3" "$place/tree/$name" || exit
fi
merge "$place/tree" "$parent"
"""
)
