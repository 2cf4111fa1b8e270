#!/bin/sh
# run.sh ANNOUNCED_S FINISH_S COMMAND...: runs an engine on Swarm, which has no pre-stop hook. On TERM it runs pre_stop.py
# (in the same folder), and then forwards TERM to the engine.
announced=$1 finish=$2
shift 2
"$@" &
engine=$!
leave() {
    python3 "$(dirname "$0")/pre_stop.py" --announced-s="$announced" --finish-s="$finish" &
    # Stop waiting if the engine exits.
    leaving=$!
    while kill -0 $leaving 2>/dev/null && kill -0 $engine 2>/dev/null; do sleep 0.2; done
    kill -TERM $engine 2>/dev/null
}
trap leave TERM INT
wait $engine
status=$?
# The trap interrupts the first wait; the second wait returns the engine's exit status.
while kill -0 $engine 2>/dev/null; do
    wait $engine
    status=$?
done
exit $status
