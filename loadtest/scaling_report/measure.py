"""Measures one visit: scales the cluster to its number of engines, warms it up, and runs the missing phases."""

import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from loadtest.gateway_client import ControllerAnnotations, GrafanaAnnotations
from loadtest.host_info import Repeating, read_cpu_time
from loadtest.run import RunResult, progress, run
from loadtest.run_spec import LoadStage, RunSpec, SearchPlan
from loadtest.scaling_report.backends import Backend, BackendError, RunningBackend
from loadtest.scaling_report.results import ClusterVisit, Phase, PhaseResult, PhaseSettings
from loadtest.statistics import RunFigures, Window, figures
from loadtest.users import ALL
from loadtest.virtual_user import VirtualUser

TIMEOUT_S = 60.0  # without a byte, on the engines' clock


@dataclass
class ScalingMeasurement:
    """Settings shared by all visits. `on_result` is called with each result immediately after its phase."""

    cluster: Backend
    work: PhaseSettings
    out: Path
    processes: int
    model: str
    annotations: GrafanaAnnotations
    on_result: Callable[[PhaseResult], None]
    done: list[PhaseResult] = field(default_factory=list)

    def visit(self, visit: ClusterVisit, phases: Sequence[Phase], title: str) -> None:
        folder = self.out / f"{visit.count}-engines" / f"repeat-{visit.repeat + 1}"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "cluster").mkdir(parents=True)
        with self.cluster.at(visit.count, folder / "cluster") as running:
            self._warm_up(running, visit.count)
            for phase in phases:
                measured = self._phase(running, visit, phase, folder / phase, title)
                self.done.append(measured)
                self.on_result(measured)

    def _warm_up(self, running: RunningBackend, count: int) -> None:
        """Sends concurrent requests with images that the work does not use: an engine's first answer is several times slower."""
        image = ALL["image"]
        settings = self._order(running, Path()).request_settings()
        settings = replace(settings, key=running.key)
        failed: list[str] = []

        def send_one(number: int) -> None:
            user = VirtualUser(
                10_000_000 + number, settings, lambda sample: failed.append(sample.failed), lambda s: None
            )
            user.converse(image, image.conversation(self.work.seed - 1, user.number, 0), time.time())
            user.connection.close()

        with ThreadPoolExecutor(self.work.warm_up_per_engine * count) as threads:
            list(threads.map(send_one, range(self.work.warm_up_per_engine * count)))
        if failed and all(failed):
            raise BackendError(f"none of {len(failed)} warm-up requests was answered: {failed[0]}")

    def _order(self, running: RunningBackend, folder: Path) -> RunSpec:
        kind = self.cluster.kind
        return RunSpec(
            url=running.url,
            model=self.model,
            scenario=self.work.scenario,
            folder=str(folder),
            slo=self.work.slo,
            seed=self.work.seed,
            processes=self.processes,
            slowdown=kind.slowdown,
            timeout_s=TIMEOUT_S * kind.slowdown,
            trusted=running.trusted,
        )

    def _phase(
        self, running: RunningBackend, visit: ClusterVisit, phase: Phase, folder: Path, title: str
    ) -> PhaseResult:
        work, slow = self.work, self.cluster.kind.slowdown
        # Each repeat has different questions, but the same questions for every number of engines.
        order = replace(self._order(running, folder), seed=work.seed + 1000 * visit.repeat)
        settle_s, length_s = 0.0, 0.0
        if phase == "limit":
            plan = self._search(visit)
            order = replace(order, loop="open", search=plan)
            length_s = 0.7 * plan.max_probes * (plan.settle_s + plan.measure_s + work.slo.total_s * slow)
        else:
            users, scenario, settle_s, measure_s = self._people(visit.count, phase)
            length_s = (settle_s + measure_s) * slow
            order = replace(order, scenario=scenario, stages=(LoadStage(length_s, users, users),))
        limited = phase == "video"
        if limited:
            running.set_memory_limit(True)
        died, used_machine, began_s = running.died(), read_cpu_time(), time.time()
        in_cluster = ControllerAnnotations(running.url, running.trusted).during(
            f"scale-proof: {visit}, {phase}", length_s
        )
        with (
            in_cluster,
            progress(f"{title} {visit}: {phase}", length_s + 4) as watch,
            GpuUseSampler(running.busy_s) as use,
        ):
            ran = run(order, running.key, watch)
        if limited:
            running.set_memory_limit(False)
        self.annotations.annotate(f"scale-proof: {visit}, {phase}", began_s, time.time(), ["scale-proof"])
        died = running.died() - died
        problem = ran.problem
        if died and not limited:
            problem = problem or f"{died} engine(s) crashed during the phase"
        window = self._window(ran, settle_s * slow)
        seen = figures(ran.samples, window, work.slo, slow)
        if phase != "limit" and not seen.answered and not problem:
            problem = f"no request was answered: {next(iter(seen.errors), 'no request was sent')}"
        return PhaseResult(
            visit=visit,
            phase=phase,
            figures=RunFigures() if phase == "limit" else seen,
            seconds=window.seconds / slow,
            used={} if phase == "limit" else use.share(window),
            died=died,
            limit_rps=_best(ran) * slow if phase == "limit" else None,
            probes=[_on_engines_clock(probe, slow) for probe in ran.probes],
            cpu_p95=ran.cpu_p95,
            lag_p95_s=ran.lag_p95_s,
            generator_was_limit=ran.generator_was_limit,
            machine_share=read_cpu_time().share_since(used_machine),
            trouble=problem,
        )

    def _people(self, count: int, phase: Phase) -> tuple[int, str, float, float]:
        work = self.work
        if phase == "full":
            return work.users_per_engine * count, work.scenario, work.full_settle_s, work.full_s
        if phase == "same":
            return work.users_per_engine, work.scenario, work.same_settle_s, work.same_s
        return work.video_users, work.video_scenario, work.video_settle_s, work.video_s

    def _search(self, visit: ClusterVisit) -> SearchPlan:
        """The search, in wall-clock seconds. It starts at nine tenths of the throughput of this visit's `full` phase."""
        work, slow = self.work, self.cluster.kind.slowdown
        full = [
            result for result in self.done if result.visit == visit and result.phase == "full" and not result.trouble
        ]
        guess = 0.9 * full[-1].figures.rps if full else 4.0 * visit.count
        return SearchPlan(
            start=max(0.2, guess) / slow,
            settle_s=work.probe_settle_s * slow,
            measure_s=work.probe_s * slow,
            precision=work.probe_precision,
            max_probes=work.most_probes,
            growth=1.15 if full else 1.5,
        )

    @staticmethod
    def _window(ran: RunResult, settle_s: float) -> Window:
        start_s, end_s = ran.span
        if ran.problem and ran.samples:
            end_s = min(end_s, max(sample.ended_s for sample in ran.samples))
        return Window(start_s + settle_s, max(start_s + settle_s, end_s))


def _best(ran: RunResult) -> float:
    return max((float(probe["level"]) for probe in ran.probes if probe["held"]), default=0.0)


def _on_engines_clock(probe: dict[str, object], slow: float) -> dict[str, object]:
    """Converts the level to the engines' clock; the other figures already are (statistics.py)."""
    return {**probe, "level": float(str(probe["level"])) * slow}


class GpuUseSampler(Repeating):
    every_s = 1.0

    def __init__(self, busy_s: Callable[[], dict[str, float]]) -> None:
        super().__init__()
        self.busy_s = busy_s
        self.seen: list[tuple[float, dict[str, float]]] = []

    def once(self) -> None:
        self.seen.append((time.time(), self.busy_s()))

    def share(self, window: Window) -> dict[str, float]:
        """GPU use of each engine (0 to 1), between the first and the last sample inside the window."""
        inside = [(at, busy_s) for at, busy_s in self.seen if window.start_s <= at <= window.end_s]
        if len(inside) < 2:
            return {}
        (start_s, first), (end_s, last) = inside[0], inside[-1]
        passed = end_s - start_s
        return {
            name: min(1.0, (last[name] - first[name]) / passed) for name in last if last[name] >= first.get(name, 1e99)
        }
