# shellcheck shell=sh
# Part of ./check: runs the tests. Needs `venv`; `wanted` is 'most' or 'all'.

# Pytest's status where no test was selected.
nothing_to_run=5

# pytest_in GROUP ARGUMENT...: each group of tests remembers by itself which of them failed.
pytest_in() {
    pytest_in_group=$1
    shift
    # A background job ignores Ctrl-C, and so would everything that a test starts.
    env --default-signal=INT \
        "$venv/bin/python" -m pytest -o "cache_dir=.pytest_cache/$pytest_in_group" "$@"
}

# The tests of the lab host keep one processor busy for a long time, and the others seldom more than
# one: side by side they take little longer than the others alone.
run_tests() {
    if [ "$wanted" = most ]; then
        pytest_in main -m "not long and not soak" "$@"
        return
    fi
    nested_output=$(mktemp) || return
    pytest_in nested -m "nested and not soak" "$@" > "$nested_output" 2>&1 &
    nested_process=$!
    run_tests_status=0
    pytest_in main -m "not nested and not soak" "$@" || run_tests_status=$?
    say "==> tests of the lab host"
    nested_status=0
    wait "$nested_process" || nested_status=$?
    cat "$nested_output"
    rm -f "$nested_output"
    if [ "$run_tests_status" -eq "$nothing_to_run" ]; then
        return "$nested_status"
    fi
    if [ "$nested_status" -ne 0 ] && [ "$nested_status" -ne "$nothing_to_run" ]; then
        return "$nested_status"
    fi
    return "$run_tests_status"
}

# Real guests on a busy machine fail for reasons that say nothing of the code: a failure counts that
# comes twice. What does not is named, so that nobody need guess which tests are unsteady.
run_failed_again() {
    complain "Once more, alone, what failed:"
    ran_again=no
    for group in main nested; do
        run_again_status=0
        pytest_in "$group" -v --last-failed --last-failed-no-failures=none || run_again_status=$?
        [ "$run_again_status" -ne "$nothing_to_run" ] || continue
        [ "$run_again_status" -eq 0 ] || return "$run_again_status"
        ran_again=yes
    done
    [ "$ran_again" = yes ] || return 1
    complain "The tests just named failed at first and passed alone: they are unsteady."
}
