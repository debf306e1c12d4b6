# shellcheck shell=sh
# The lints. Every one of them runs, so that one look shows all there is to repair. Needs common.sh.

# lint_one NAME COMMAND...: the names of those that fail are gathered in `failed`.
lint_one() { stage "$@" || failed="$failed $1"; }

# shell_scripts: whatever says in its first line that a shell runs it.
shell_scripts() {
    find up check .ci setup images tests bench -type f 2>&- | while read -r script; do
        read -r script_first < "$script" 2>&- || continue
        case $script_first in
            '#!/bin/sh'* | '#!/bin/bash'* | '#!/usr/bin/env bash'*) printf '%s\n' "$script" ;;
        esac
    done
}

# The pieces under setup/ make sense only where they are sourced, so they are checked from there.
lint_shell() { shell_scripts | xargs -d '\n' shellcheck --external-sources --check-sourced; }

lint_yaml() { "$venv/bin/yamllint" --strict .; }

lint_all() {
    lint_one ruff "$venv/bin/ruff" check
    lint_one format "$venv/bin/ruff" format --check
    lint_one mypy "$venv/bin/mypy"
    lint_one imports "$venv/bin/lint-imports"
    lint_one codespell "$venv/bin/codespell"
    lint_one yamllint lint_yaml
    lint_one shellcheck lint_shell
}
