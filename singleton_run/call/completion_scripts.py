"""Completion scripts for three shells. They call singleton-run, which prints the completions."""

from __future__ import annotations

_BASH = """\
# Completion of singleton-run for bash, made by: singleton-run completion bash

_singleton_run() {
    local i line
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ ${COMP_WORDS[i]} == -- ]]; then
            _singleton_run_command $((i + 1))
            return
        fi
    done
    while IFS= read -r line; do
        COMPREPLY+=("${line%%$'\\t'*}")
    done < <(_SINGLETON_RUN_COMPLETE=1 "$1" "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}

# What follows the -- completes as it would by itself, if bash-completion is there to do it.
_singleton_run_command() {
    local line
    if declare -F _comp_command_offset >/dev/null; then
        _comp_command_offset "$1"
    elif declare -F _command_offset >/dev/null; then
        _command_offset "$1"
    else
        compopt -o filenames 2>/dev/null
        while IFS= read -r line; do
            COMPREPLY+=("$line")
        done < <(
            ((COMP_CWORD > $1)) || _singleton_run_programs "${COMP_WORDS[COMP_CWORD]}"
            compgen -f -- "${COMP_WORDS[COMP_CWORD]}"
        )
    fi
}

# The programs on PATH that begin with $1: no functions, aliases or words of the shell's own.
_singleton_run_programs() {
    local directory file
    local -a directories
    [[ $1 != */* ]] || return 0
    IFS=: read -ra directories <<<"$PATH"
    for directory in "${directories[@]}"; do
        for file in "$directory/$1"*; do
            [[ -f $file && -x $file ]] && printf '%s\\n' "${file##*/}"
        done
    done | sort -u
}

complete -F _singleton_run singleton-run
"""

_ZSH = """\
#compdef singleton-run
# Completion of singleton-run for zsh, made by: singleton-run completion zsh

_singleton-run() {
    local -i dashes=${words[(ie)--]}
    local -a lines
    if (( dashes < CURRENT )); then
        # What follows the -- completes as it would by itself.
        shift $dashes words
        (( CURRENT -= dashes ))
        _normal -p singleton-run
        return
    fi
    lines=(${(f)"$(_SINGLETON_RUN_COMPLETE=1 ${words[1]} "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    lines=("${(@)lines//:/\\\\:}")
    lines=("${(@)lines/$'\\t'/:}")
    _describe singleton-run lines
}

if [[ ${zsh_eval_context[-1]} == loadautofunc ]]; then
    _singleton-run "$@"
else
    compdef _singleton-run singleton-run
fi
"""

_FISH = """\
# Completion of singleton-run for fish, made by: singleton-run completion fish

function __singleton_run_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    if set -l dashes (contains -i -- -- $words)
        # What follows the -- completes as it would by itself.
        set -e words[1..$dashes]
        complete -C (string join -- ' ' (string escape -- $words) $current)
    else
        _SINGLETON_RUN_COMPLETE=1 $words $current 2>/dev/null
    end
end

complete -c singleton-run -f -a '(__singleton_run_complete)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
"""The completion script of each shell."""
