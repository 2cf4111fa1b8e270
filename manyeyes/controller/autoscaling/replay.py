"""`python -m manyeyes.controller.autoscaling.replay FILE --pool POOL [--other POLICY.yaml]`: replays a recorded load.

Shows what the autoscaler would have done. FILE is a record of the controller (`controller.record_load`, state volume,
load/DATE.jsonl) or Prometheus' response to `/api/v1/query_range?query=manyeyes_scaling_load{pool="POOL"}`. The demand
is replayed as recorded. Requests in flight do not depend on the number of engines, but times and GPU utilization do:
with those as targets, a replay shows only tendencies.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from manyeyes.config import documents
from manyeyes.config.documents import DocumentError
from manyeyes.config.loader import ConfigError, load
from manyeyes.config.placement import DEFAULT_INVENTORY, PlacementError, load_inventory, place_engines
from manyeyes.config.scaling import Scaling
from manyeyes.controller.autoscaling.demand import PoolLoad
from manyeyes.controller.autoscaling.policy import PoolAutoscaler, ScalingDecision, with_default_target

KINDS = ("in_flight", "queue_time_s", "p95_s", "gpu")
LONGEST_STEP_S = 60.0
"""A gap in the record counts for at most this long."""


class InvalidRecord(Exception):
    """The record is invalid; the message says why."""


@dataclass(frozen=True)
class ReplayResult:
    decisions: tuple[ScalingDecision, ...]
    """Decisions that changed the count."""
    engine_hours: float
    hours: float
    overloaded: float
    """Share of the time with more requests in flight than the policy's target and tolerance allow, 0 to 1."""

    @property
    def average(self) -> float:
        return self.engine_hours / self.hours if self.hours else 0.0


def parse_record(text: str, pool: str) -> list[PoolLoad]:
    """Parses the record of one pool, oldest first. Raises InvalidRecord."""
    loads = sorted(_loads(text, pool), key=lambda load: load.at_s)
    if not loads:
        raise InvalidRecord(f"it has no records of pool '{pool}'")
    return loads


def replay(scaling: Scaling, engines: int, loads: Sequence[PoolLoad]) -> ReplayResult:
    """Replays the record; engines take the policy's `ready_s` to start. Pure."""
    desired = min(engines, max(scaling.min, loads[0].serving or 1))
    scaler = PoolAutoscaler(scaling, desired)
    up, ready_at_s = desired, list[float]()
    decisions: list[ScalingDecision] = []
    engine_s = overloaded_s = total_s = 0.0
    before_s = loads[0].at_s
    for sample in loads:
        step_s = min(sample.at_s - before_s, LONGEST_STEP_S)
        before_s = sample.at_s
        up += sum(at_s <= sample.at_s for at_s in ready_at_s)
        ready_at_s = [at_s for at_s in ready_at_s if at_s > sample.at_s]
        engine_s += step_s * (up + len(ready_at_s))
        total_s += step_s
        target = scaling.target.in_flight
        if (
            target is not None
            and sample.in_flight is not None
            and sample.in_flight > up * target * (1 + scaling.tolerance)
        ):
            overloaded_s += step_s
        scaler.see(replace(sample, serving=up))
        before = scaler.desired
        decision = scaler.decide(engines, sample.at_s)
        if decision.desired != before:
            decisions.append(decision)
        lacking = decision.desired - up - len(ready_at_s)
        if lacking > 0:
            ready_at_s += [sample.at_s + scaling.ready_s] * lacking
        elif lacking < 0:
            cancelled = min(len(ready_at_s), -lacking)
            ready_at_s = ready_at_s[: len(ready_at_s) - cancelled]
            up += lacking + cancelled
    return ReplayResult(tuple(decisions), engine_s / 3600, total_s / 3600, overloaded_s / total_s if total_s else 0.0)


def _loads(text: str, pool: str) -> Iterable[PoolLoad]:
    if text.lstrip().startswith('{"status"'):
        return _from_prometheus(text, pool)
    return _from_lines(text, pool)


def _from_lines(text: str, pool: str) -> Iterable[PoolLoad]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            if fields.pop("pool") == pool:
                yield PoolLoad(**fields)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            # A killed controller leaves its last line incomplete.
            if number == text.count("\n") + 1:
                return
            raise InvalidRecord(f"line {number} is not a record: {line[:80]}") from error


def _from_prometheus(text: str, pool: str) -> Iterable[PoolLoad]:
    try:
        document = json.loads(text)
        series = document["data"]["result"]
        at: dict[float, dict[str, Any]] = defaultdict(dict)
        for line in series:
            if line["metric"].get("pool") == pool:
                for at_s, value in line["values"]:
                    at[float(at_s)][line["metric"]["kind"]] = float(value)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InvalidRecord(
            f"it is not a Prometheus response to a range query: {type(error).__name__} {error}"
        ) from error
    for at_s, kinds in at.items():
        yield PoolLoad(at_s, int(kinds.get("serving", 0)), *(kinds.get(kind) for kind in KINDS))


def main() -> int:
    parser = argparse.ArgumentParser(prog="manyeyes replay", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--pool", required=True)
    parser.add_argument("--config", type=Path, default=Path("config/cluster.yaml"))
    parser.add_argument(
        "--inventory", type=Path, help="the host's inventory, for `engines: auto`; default: two GPUs of 24 GiB"
    )
    parser.add_argument("--other", type=Path, help="a YAML file with another `scaling` section, for comparison")
    arguments = parser.parse_args()
    try:
        return _compare(arguments)
    except (ConfigError, PlacementError) as error:
        print(error, file=sys.stderr)
    except DocumentError as error:
        print(f"{arguments.other}: {error}", file=sys.stderr)
    except (InvalidRecord, OSError, UnicodeDecodeError) as error:
        print(f"{arguments.file}: {error}", file=sys.stderr)
    except ValidationError as error:
        first = error.errors()[0]
        print(f"{arguments.other}: {'.'.join(map(str, first['loc']))}: {first['msg']}", file=sys.stderr)
    return 2


def _compare(arguments: argparse.Namespace) -> int:
    inventory = DEFAULT_INVENTORY
    if arguments.inventory:
        inventory = load_inventory(arguments.inventory)
    cluster = place_engines(load(arguments.config), inventory)
    if arguments.pool not in [pool.name for pool in cluster.pools]:
        print(f"{arguments.config} has no pool '{arguments.pool}'", file=sys.stderr)
        return 2
    pool = cluster.pool(arguments.pool)
    engines = len(cluster.engines_of(pool.name))
    policies = {"as configured": pool.scaling or Scaling()}
    if arguments.other:
        policies[str(arguments.other)] = Scaling.model_validate(documents.read(arguments.other) or {})
    loads = parse_record(arguments.file.read_text(encoding="utf-8"), pool.name)
    for name, policy in policies.items():
        filled = with_default_target(pool.model_copy(update={"scaling": policy}), cluster.engines)
        assert filled is not None
        _print(name, replay(filled, engines, loads), engines)
    return 0


def _print(name: str, replayed: ReplayResult, engines: int) -> None:
    always = engines * replayed.hours
    print(f"{name}:")
    for decision in replayed.decisions:
        print(f"  {datetime.fromtimestamp(decision.at_s, UTC):%Y-%m-%d %H:%M:%S}  {decision.sentence}")
    share = f"{replayed.engine_hours / always:.0%}" if always else "-"
    print(
        f"  {replayed.hours:.1f} h, {len(replayed.decisions)} changes, {replayed.engine_hours:.1f} engine-hours "
        f"({share} of {engines} always on), {replayed.average:.1f} engines on average, "
        f"over target for {replayed.overloaded:.1%} of the time"
    )


if __name__ == "__main__":
    sys.exit(main())
