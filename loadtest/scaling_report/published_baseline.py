"""The published case that people compare themselves with. Not measured here: each figure is its authors'."""

from dataclasses import dataclass

TITLE = "Load balancing Qwen3-VL-WEBUI: several instances, a practical case"
ORIGINAL = "Qwen3-VL-WEBUI负载均衡:多实例部署优化实战案例"
SOURCE = "http://www.0539edu.com/news/741287"
SEEN = "a blog article, in a copy dated 2026-01-22"
SETUP = "three instances of Qwen3-VL-4B-Instruct on RTX 4090 D cards behind Nginx, load by Locust"
CAVEATS = (
    "It names neither the sizes of pictures and videos nor the lengths of answers nor repeats, so its absolute figures "
    "cannot be compared with any others. More than three times the requests from three instances is no contradiction: "
    "where waiting is limited, people who arrive at random find one of several engines free sooner than the only one."
)


@dataclass(frozen=True)
class Row:
    """Before and after, as published."""

    what: str
    one: str
    three: str
    change: str


ROWS = (
    Row("Most requests a second", "3.2", "11.8", "3.69 ×"),
    Row("P95 of the answers", "4.8 s", "1.9 s", "−60 %"),
    Row("Videos answered", "82 %", "98.7 %", "+16.7 points"),
    Row("Out of memory", "12 an hour", "0", "−100 %"),
)
