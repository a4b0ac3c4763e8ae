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
        COMPREPLY+=("${line%%$'\t'*}")
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
            [[ -f $file && -x $file ]] && printf '%s\n' "${file##*/}"
        done
    done | sort -u
}

complete -F _singleton_run singleton-run
