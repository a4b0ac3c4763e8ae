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
