#!/bin/sh
# run.sh ANNOUNCED_S FINISH_S COMMAND...: runs an engine where nothing else can be told to go before it is stopped (Swarm has no
# preStop). On TERM it does what pre_stop.py says, and passes TERM on after that. Beside pre_stop.py.
announced=$1 finish=$2
shift 2
"$@" &
engine=$!
leave() {
    python3 "$(dirname "$0")/pre_stop.py" --announced-s="$announced" --finish-s="$finish" &
    # An engine that ends meanwhile is not waited for.
    leaving=$!
    while kill -0 $leaving 2>/dev/null && kill -0 $engine 2>/dev/null; do sleep 0.2; done
    kill -TERM $engine 2>/dev/null
}
trap leave TERM INT
wait $engine
status=$?
# A trap ends the first wait; the second has the engine's own status.
while kill -0 $engine 2>/dev/null; do
    wait $engine
    status=$?
done
exit $status
