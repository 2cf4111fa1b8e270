"""The state machine of one engine: how each observation changes its state. Pure: no clock, no socket.

unknown ─▶ starting ─▶ warming ─▶ up ◀─▶ suspect ─▶ down ─▶ warming ─▶ up
                                  up ◀─▶ sleeping

A busy engine is not a hung engine. vLLM answers /health on the event loop that also accepts requests, so a saturated
engine answers after tens of seconds. It also answers 200 while its GPU work is stalled. So /health alone decides
nothing: an engine that makes progress or recently succeeded stays in rotation, and an engine that answers 200 without
progress must answer a canary request.
"""

from dataclasses import replace

from manyeyes.config.gateway import Controller
from manyeyes.controller.health.states import (
    SERVES,
    STATES_BEFORE_UP,
    CanaryResult,
    EngineHealth,
    EngineState,
    Observation,
    ProbeResult,
    SuspectReason,
    Transition,
)

LONGEST_TIMEOUT_S = 60.0
LONGEST_PENALTY_S = 300.0


def observe(engine: EngineHealth, seen: Observation, rules: Controller) -> Transition:
    """The engine's health after one observation."""
    after = _count(engine, seen)
    if seen.result in (ProbeResult.GONE, ProbeResult.DEAD):
        return _leave(after, seen, rules)
    if seen.asleep and after.state is not EngineState.SLEEPING:
        return Transition(_enter(after, EngineState.SLEEPING), "sleeps: it gets no requests until it is woken")
    if after.state is EngineState.SLEEPING:
        if seen.result is ProbeResult.HEALTHY and seen.asleep is False:
            return _admit(after, seen, rules, "is awake again")
        return Transition(after)
    if after.serves:
        return _check_serving(after, seen, rules)
    if seen.result is ProbeResult.HEALTHY:
        return _consider_admission(after, seen, rules)
    if after.state is EngineState.UNKNOWN and after.bad >= rules.fall:
        return Transition(_enter(after, EngineState.STARTING), f"is not up yet: {_describe_result(seen)}")
    return Transition(after)


def finish_warm_up(engine: EngineHealth, at_s: float, error: str = "") -> Transition:
    """The engine's health after its warm-up request. A failed warm-up is tried again after the next healthy probe."""
    if engine.state is not EngineState.WARMING:
        return Transition(engine)
    if error:
        failed = replace(engine, good=0, last=ProbeResult.DEAD, warm_ups_failed=engine.warm_ups_failed + 1)
        return Transition(failed, f"stays out: its warm-up failed: {error}")
    return Transition(_up(engine, at_s), "is up: its warm-up request succeeded")


def needs_canary(engine: EngineHealth, seen: Observation, rules: Controller) -> bool:
    """Whether a canary request is needed in addition to /health. A slow engine never gets one: it has enough work."""
    if seen.result not in (ProbeResult.HEALTHY, ProbeResult.ODD):
        return False
    proof_s = seen.at_s - engine.proved_at_s if engine.proved_at_s is not None else float("inf")
    if engine.state is EngineState.SUSPECT:
        return engine.suspect_reason is not SuspectReason.SILENT and (
            engine.suspect_reason is not SuspectReason.ODD or proof_s >= rules.hung_after_s
        )
    is_due = 0 < rules.canary_interval_s <= proof_s
    return engine.state is EngineState.UP and (seen.unverified or (seen.idle and is_due))


def drain(engine: EngineHealth, reason: str) -> Transition:
    """Drains an engine. Its requests in flight continue."""
    if engine.drained:
        return Transition(engine)
    return Transition(replace(engine, drained=True, drain_reason=reason), f"is drained: {reason}")


def undrain(engine: EngineHealth, reason: str) -> Transition:
    """Undrains an engine. It gets requests again when it is up."""
    if not engine.drained:
        return Transition(engine)
    return Transition(replace(engine, drained=False, drain_reason=""), f"is resumed: {reason}")


def rest(engine: EngineHealth) -> Transition:
    """Records that the autoscaler stopped the engine or put it to sleep."""
    if engine.at_rest:
        return Transition(engine)
    return Transition(replace(engine, at_rest=True), "is scaled down: it is not needed")


def expect(engine: EngineHealth) -> Transition:
    """Records that the engine was started or woken and will be up soon."""
    state = EngineState.STARTING if engine.state is EngineState.DOWN else engine.state
    return Transition(replace(engine, at_rest=False, state=state), "is starting")


def restore(state: EngineState, at_s: float) -> EngineHealth:
    """The engine's health as it was before the controller restarted; the first probe corrects it."""
    if state in SERVES:
        return replace(_up(EngineHealth(), at_s), settled=True)
    restored = state if state in (EngineState.DOWN, EngineState.SLEEPING) else EngineState.STARTING
    return EngineHealth(state=restored, settled=True)


def eligible_members(pool: dict[str, EngineHealth]) -> list[str] | None:
    """The engines of one pool that get new requests, by name. None while the states are unknown; nginx then keeps its
    members.

    Timeouts alone never empty a pool: when no engine serves, engines that only timed out stay in rotation.
    """
    undrained = {name: engine for name, engine in pool.items() if not engine.drained}
    if not all(engine.settled for engine in undrained.values()):
        return None
    serving = [name for name, engine in undrained.items() if engine.serves]
    return serving or [
        name for name, engine in undrained.items() if engine.state is EngineState.DOWN and engine.timed_out
    ]


def _count(engine: EngineHealth, seen: Observation) -> EngineHealth:
    """Updates the counters and times of the observation; the state stays the same."""
    healthy = seen.result is ProbeResult.HEALTHY and not seen.why
    at_s = seen.at_s
    success_s = seen.succeeded_at_s
    alive = at_s if seen.result in (ProbeResult.HEALTHY, ProbeResult.ODD) or seen.progressed else engine.alive_at_s
    if seen.progressed or (seen.progressed is False and not seen.busy) or seen.canary is CanaryResult.PASSED:
        moved: float | None = at_s
    else:
        moved = engine.moved_at_s
    proved = at_s if seen.canary is CanaryResult.PASSED else engine.proved_at_s
    failed = engine.canaries_failed + (seen.canary in (CanaryResult.FAILED, CanaryResult.SILENT))
    answered = seen.result is ProbeResult.HEALTHY
    return _with(
        engine,
        good=engine.good + 1 if healthy else 0,
        bad=0 if healthy else engine.bad + 1,
        last=seen.result,
        alive_at_s=_later(alive, success_s),
        moved_at_s=_later(moved, success_s),
        proved_at_s=_later(proved, success_s),
        slow_s=max(seen.waited_s, engine.slow_s / 2) if answered else engine.slow_s,
        canaries_failed=0 if seen.canary is CanaryResult.PASSED else failed,
        good_since_s=(engine.good_since_s if engine.good_since_s is not None else at_s) if healthy else None,
    )


def _with(engine: EngineHealth, **changes: object) -> EngineHealth:
    """Like dataclasses.replace(), at a fifth of its cost, for the code that every probe runs."""
    after = object.__new__(EngineHealth)
    after.__dict__.update(engine.__dict__, **changes)
    return after


def _leave(engine: EngineHealth, seen: Observation, rules: Controller) -> Transition:
    """The engine is gone, or reports that it cannot serve."""
    engine = replace(engine, served=False) if seen.result is ProbeResult.GONE else engine
    if engine.state is EngineState.UNKNOWN:
        return Transition(_enter(engine, EngineState.STARTING), f"is not up yet: {_describe_result(seen)}")
    if engine.state is EngineState.WARMING:
        return Transition(_enter(engine, EngineState.STARTING), f"failed while warming up: {_describe_result(seen)}")
    if engine.serves or engine.state is EngineState.SLEEPING:
        # An engine that was drained and stopped on purpose has no fault.
        event = "stopped while it was drained" if engine.drained else "is down"
        return Transition(_down(engine, seen, rules, timed_out=False), f"{event}: {_describe_result(seen)}")
    return Transition(replace(engine, timed_out=False))


def _check_serving(engine: EngineHealth, seen: Observation, rules: Controller) -> Transition:
    """Decides whether an engine in rotation stays up, is suspect, or is down."""
    if seen.result is ProbeResult.SILENT:
        patience_s = max(rules.hung_after_s * seen.patience, min(2 * engine.slow_s, LONGEST_TIMEOUT_S))
        quiet_s = seen.at_s - (engine.alive_at_s if engine.alive_at_s is not None else seen.at_s)
        if quiet_s >= patience_s:
            why = f"no answer to /health and no progress for {quiet_s:.0f} s"
            return Transition(_down(engine, seen, rules, timed_out=True), f"is down: {why}")
    # One failed canary request takes out a stalled engine; any other engine needs two in a row.
    if (
        engine.canaries_failed >= (1 if engine.suspect_reason is SuspectReason.STALLED else 2)
        and seen.canary is not None
    ):
        timed_out = seen.canary is CanaryResult.SILENT
        return Transition(_down(engine, seen, rules, timed_out), f"is down: {_describe_canary(seen)}")
    suspicion, why = _find_suspicion(engine, seen, rules)
    if suspicion is None:
        if engine.state is EngineState.UP:
            return Transition(engine)
        return Transition(
            replace(_up(engine, None), proved_at_s=engine.proved_at_s), "is up again: its health checks pass"
        )
    if engine.state is EngineState.UP:
        return Transition(
            replace(engine, state=EngineState.SUSPECT, suspect_reason=suspicion, settled=True), f"is suspect: {why}"
        )
    # The first reason stays, unless a more serious reason is found.
    graver = suspicion is SuspectReason.STALLED and engine.suspect_reason in (SuspectReason.SILENT, SuspectReason.ODD)
    milder = engine.suspect_reason is SuspectReason.SILENT and suspicion is not SuspectReason.SILENT
    return Transition(replace(engine, suspect_reason=suspicion) if graver or milder else engine)


def _find_suspicion(engine: EngineHealth, seen: Observation, rules: Controller) -> tuple[SuspectReason | None, str]:
    """The reason to suspect an engine in rotation, and its description; None when there is no reason."""
    moved_s = seen.at_s - (engine.moved_at_s if engine.moved_at_s is not None else seen.at_s)
    passed = seen.canary is CanaryResult.PASSED
    if engine.canaries_failed:
        return SuspectReason.CANARY, _describe_canary(seen)
    if seen.progressed is False and seen.busy and not passed and moved_s >= rules.stalled_after_s * seen.patience:
        return SuspectReason.STALLED, f"it answers /health, but has made no progress for {moved_s:.0f} s"
    if seen.progressed is None and engine.suspect_reason is SuspectReason.STALLED and not passed:
        return SuspectReason.STALLED, "its progress is not known"
    if seen.failures >= rules.fall and not passed:
        return SuspectReason.FAILING, f"{seen.failures} requests in a row failed on it"
    if seen.result is ProbeResult.SILENT and (engine.bad >= rules.fall or engine.state is EngineState.SUSPECT):
        why = f"no answer to /health for {seen.waited_s:.0f} s, but it makes progress or recently did"
        return SuspectReason.SILENT, why
    if seen.why and (engine.bad >= rules.fall or engine.state is EngineState.SUSPECT):
        return SuspectReason.ODD, seen.why
    if engine.state is EngineState.SUSPECT and engine.good < rules.rise and not passed:
        return engine.suspect_reason, ""
    return None, ""


def _consider_admission(engine: EngineHealth, seen: Observation, rules: Controller) -> Transition:
    """A healthy probe of an engine that is not in rotation."""
    if engine.state not in STATES_BEFORE_UP or engine.good < rules.rise:
        return Transition(engine)
    downs = _recent(engine.downs, seen.at_s, rules)
    if engine.state is EngineState.DOWN and len(downs) >= rules.flap_downs and seen.others_serve:
        required_s = min(rules.flap_penalty_s * 2.0 ** (len(downs) - rules.flap_downs), LONGEST_PENALTY_S)
        good_s = seen.at_s - (engine.good_since_s if engine.good_since_s is not None else seen.at_s)
        if good_s < required_s:
            why = f"it went down {len(downs)} times in {rules.flap_window_s / 60:.0f} minutes"
            first = engine.good == rules.rise
            return Transition(
                engine, f"stays out: {why}, so it must be healthy for {required_s:.0f} s" if first else ""
            )
    return _admit(engine, seen, rules, "answers /health")


def _admit(engine: EngineHealth, seen: Observation, rules: Controller, why: str) -> Transition:
    if not rules.warm_up:
        return Transition(_up(engine, seen.at_s), f"is up: it {why}")
    warming = replace(engine, state=EngineState.WARMING, suspect_reason=None, timed_out=False, canaries_failed=0)
    return Transition(warming, f"{why} and gets its warm-up request")


def _up(engine: EngineHealth, at_s: float | None) -> EngineHealth:
    """The engine in rotation and not suspect.

    `at_s` is set when it has just answered a request; None keeps its times.
    """
    fresh = replace(_enter(engine, EngineState.UP), bad=0, served=True, warm_ups_failed=0)
    return replace(fresh, alive_at_s=at_s, moved_at_s=at_s, proved_at_s=at_s) if at_s is not None else fresh


def _down(engine: EngineHealth, seen: Observation, rules: Controller, timed_out: bool) -> EngineHealth:
    recent = _recent(engine.downs, seen.at_s, rules)
    # An engine that was drained and stopped on purpose does not count as flapping.
    downs = recent if engine.drained or engine.state is EngineState.SLEEPING else (*recent, seen.at_s)
    return replace(_enter(engine, EngineState.DOWN), timed_out=timed_out, downs=downs, good=0, good_since_s=None)


def _enter(engine: EngineHealth, state: EngineState) -> EngineHealth:
    return replace(engine, state=state, settled=True, suspect_reason=None, timed_out=False, canaries_failed=0)


def _recent(downs: tuple[float, ...], at_s: float, rules: Controller) -> tuple[float, ...]:
    return tuple(down_s for down_s in downs if down_s > at_s - rules.flap_window_s)


def _later(first: float | None, second: float | None) -> float | None:
    if first is None or second is None:
        return second if first is None else first
    return max(first, second)


def _describe_result(seen: Observation) -> str:
    return {
        ProbeResult.GONE: "nothing listens there",
        ProbeResult.DEAD: "it reports that it cannot serve",
        ProbeResult.SILENT: "no answer to /health in time",
        ProbeResult.HEALTHY: "it is healthy",
        ProbeResult.ODD: seen.why or "it does not respond like an engine",
    }[seen.result]


def _describe_canary(seen: Observation) -> str:
    if seen.canary is CanaryResult.SILENT:
        return "it did not answer a canary request in time"
    return f"a canary request failed: {seen.canary_problem}" if seen.canary_problem else "a canary request failed"
