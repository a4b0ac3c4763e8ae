#!/bin/sh
# What singleton-run does, on this machine and without a server. `make demo` calls it; it leaves nothing behind.
set -eu

dir=$(mktemp -d)
pids=
finish() {
    status=$?
    trap - EXIT HUP INT TERM
    for pid in $pids; do kill -9 "$pid" 2>/dev/null || :; done
    wait || :
    rm -rf "$dir"
    exit "$status"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

export dir SINGLETON_RUN_LOCK="file://$dir/locks"
mkdir -m 700 "$dir/locks"

until_there() { # FILE: wait until it has a line, at most a minute
    tries=0
    until [ -s "$1" ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 1200 ]; then echo "demo: $1 did not appear in a minute" >&2; exit 1; fi
        sleep 0.05
    done
}

echo '== Ten copies started at once: one at a time =='
for copy in 0 1 2 3 4 5 6 7 8 9; do
    singleton-run -q --name ten -- sh -c '
        echo "start $0 (token $SINGLETON_TOKEN)" | tee -a "$dir/log"
        sleep 0.1
        echo "end   $0" | tee -a "$dir/log"' "$copy" &
    pids="$pids $!"
done
for pid in $pids; do wait "$pid"; done
pids=
awk '
    $1 == "start" { if (running != "") bad = 1; running = $2 }
    $1 == "end"   { if (running != $2) bad = 1; running = ""; ran++ }
    END           { if (bad || ran != 10) { print "two overlapped, or one is missing"; exit 1 }
                    print "ten ran, none overlapped" }' "$dir/log"

echo
echo '== kill -9 of the wrapper: the job goes with it, and the next one starts =='
singleton-run --name job -- sh -c 'echo $$ > "$dir/job"; exec sleep 1000' &
holder=$!
pids=$holder
until_there "$dir/job"
job=$(cat "$dir/job")
echo "the first copy runs: wrapper $holder, job $job"
singleton-run --name job -- sh -c '
    date +%s%N > "$dir/started"
    if kill -0 "$0" 2>/dev/null; then echo "job $0 STILL RUNS"; else echo "job $0 is gone"; fi > "$dir/next"' "$job" &
next=$!
pids="$holder $next"
sleep 0.5
if [ -s "$dir/next" ]; then echo 'demo: the second copy did not wait' >&2; exit 1; fi
echo 'the second copy waits'
echo "kill -9 $holder"
killed=$(date +%s%N)
kill -9 "$holder"
wait "$holder" 2>/dev/null || :
pids="$next $job"
until_there "$dir/next"
wait "$next"
pids=
started=$(cat "$dir/started")
case $started in *[!0-9]*) after= ;; *) after=", $(((started - killed) / 1000000)) ms after the kill" ;; esac
echo "$(cat "$dir/next"), and the second copy has started$after"
grep -q 'is gone' "$dir/next"
