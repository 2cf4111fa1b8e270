"""Whether what was asked for was reached. Pure."""

from dataclasses import dataclass

from loadtest.scaling_report.results import Results


@dataclass(frozen=True)
class Thresholds:
    min_efficiency: float | None = None
    max_p95_s: float | None = None


def missed(results: Results, thresholds: Thresholds) -> list[str]:
    """One sentence for each threshold that was missed, or that nothing was measured for."""
    found = []
    least, most = thresholds.min_efficiency, thresholds.max_p95_s
    if least is not None:
        efficiencies = {count: at.efficiency.median for count, at in results.counts.items() if at.efficiency}
        if not any(count > 1 for count in efficiencies):
            found.append(f"efficiency was not measured, wanted at least {least:g}")
        found += [
            f"efficiency at {count} engines is {value:.3f}, wanted at least {least:g}"
            for count, value in efficiencies.items()
            if value < least
        ]
    if most is not None:
        last = results.counts[max(results.counts)]
        if last.same_p95_s is None:
            found.append(f"p95 was not measured, wanted at most {most:g} s")
        elif last.same_p95_s.median > most:
            found.append(f"p95 on {last.count} engines is {last.same_p95_s.median:.2f} s, wanted at most {most:g} s")
    for at in results.counts.values():
        if at.limit_rps is not None and at.limit_rps.median == 0:
            found.append(f"the objective was never met on {at.count} engine(s), at no rate that was tried")
    return found
