"""A service level objective: what people may expect, and whether an answer or a run kept it."""

from dataclasses import dataclass

from loadtest.sample import Sample


@dataclass(frozen=True)
class Slo:
    """Times are seconds of the engines' clock. `share`: of requests that have to keep both, and to be answered at all."""

    first_s: float = 2.0
    total_s: float = 5.0
    share: float = 0.95

    def kept_by(self, sample: Sample, slowdown: float = 1.0) -> bool:
        if sample.failed or not sample.first_s:
            return False
        return sample.first_s <= self.first_s * slowdown and sample.total_s <= self.total_s * slowdown

    def __str__(self) -> str:
        return f"{self.share:.0%} of requests answered within {self.total_s:g} s, their first token within {self.first_s:g} s"


STANDARD = Slo()


def slo(text: str) -> Slo:
    """From `first=2,total=5,share=0.95`, any of them. Raises ValueError with one sentence."""
    given: dict[str, float] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = word.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if name not in ("first", "total", "share") or number <= 0 or (name == "share" and number > 1):
            raise ValueError(f"an SLO is written first=2,total=5,share=0.95 (seconds, and 0 to 1); found {word!r}")
        given[name if name == "share" else f"{name}_s"] = number
    return Slo(**given)
