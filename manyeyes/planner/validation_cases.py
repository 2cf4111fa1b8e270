"""The configurations that the planner is held to: chosen before it was compared with anything, and not used to change it."""

from dataclasses import dataclass

from manyeyes.config.pools import Pool
from manyeyes.planner.gpu_spec import card
from manyeyes.planner.plan_request import Ask
from manyeyes.planner.simulation import Span
from manyeyes.planner.workload import Work
from manyeyes.simulator import profile


@dataclass(frozen=True)
class Held:
    """`share` of the highest rate is only a word for people; `rps` counts."""

    name: str
    profile: str
    engines: int
    rps: float
    work: Work
    warm_s: float = 15.0
    measured_s: float = 90.0

    @property
    def span(self) -> Span:
        return Span(self.warm_s, self.measured_s)

    def ask(self, seed: int) -> Ask:
        """As loadtest/scaling_report/process_backend.py starts engines: a pool with every setting at its default."""
        pool = Pool(name="qwen3-vl-4b", model="Qwen/Qwen3-VL-4B-Instruct")
        return Ask(self.work, card(profile.load(self.profile), pool), self.rps, 5.0, None, 0.99, seed=seed)


FOUR_B, EIGHT_B = "rtx4090-qwen3-vl-4b-fp8", "rtx4090-qwen3-vl-8b-fp8"
HELD = (
    Held("one engine, single pictures, calm", FOUR_B, 1, 2.5, Work(1280, 720, output_tokens=80)),
    Held("three engines, single pictures, busy", FOUR_B, 3, 15.0, Work(896, 672, output_tokens=80)),
    Held(
        "three engines, chats of five turns about a picture",
        FOUR_B,
        3,
        12.0,
        Work(1024, 768, turns=5, think_s=4.0, output_tokens=60),
        warm_s=35.0,
    ),
    Held(
        "two engines, 8B, two pictures, long questions",
        EIGHT_B,
        2,
        2.4,
        Work(1024, 768, images=2, words=200, output_tokens=60),
    ),
    Held("two engines, large pictures, few words said", FOUR_B, 2, 8.0, Work(1920, 1080, output_tokens=12)),
)
