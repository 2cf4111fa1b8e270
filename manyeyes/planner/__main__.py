"""`python -m manyeyes.planner plan|policies`: the program behind `manyeyes plan` and `manyeyes plan-policies`.

Exit codes: 0 done, 1 no number of GPUs (or not the given number) is enough, 2 an invalid value, 130 Ctrl-C.
"""

import argparse
import os
import re
import shlex
import sys
from pathlib import Path

from manyeyes.arguments import NumberArgument, OneLineParser
from manyeyes.charts.templates import markdown_table
from manyeyes.config.loader import ConfigError, load
from manyeyes.planner import policies
from manyeyes.planner.balancing import POLICIES
from manyeyes.planner.report import (
    caveat,
    html,
    markdown,
    print_table,
    progress_bar,
    progress_bars,
    request_line,
    tables,
    verdict,
)
from manyeyes.planner.search import NoSufficientSize, meets_request, plan, span
from manyeyes.planner.workload import (
    MAX_TURNS,
    PlannedWorkload,
    PlanRequest,
    UnknownGpu,
    gpu_spec_of,
    pool_named,
    profile_of,
)


class WrongValue(Exception):
    """An invalid value. `str()` is one line with the problem and what to do."""


def size(text: str) -> tuple[int, int]:
    """An argparse type: 1280x720."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not match or min(map(int, match.groups())) < 1:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT in pixels, like 1280x720, got {text!r}")
    return int(match[1]), int(match[2])


def parser() -> OneLineParser:
    p = OneLineParser("plan", prog="plan", description=__doc__)
    p.add_argument("action", choices=("plan", "policies"))
    p.add_argument("--rps", type=NumberArgument(0.001), help="requests a second of all users together")
    p.add_argument(
        "--p95",
        type=NumberArgument(0.001),
        default=5.0,
        help="seconds within which 95 of 100 requests must be answered",
    )
    p.add_argument(
        "--first-p95",
        type=NumberArgument(0.001),
        help="seconds within which 95 of 100 requests must have their first token",
    )
    p.add_argument(
        "--goodput", type=NumberArgument(0.001, 1), default=0.99, help="fraction of requests that must be answered"
    )
    p.add_argument("--image", type=size, default=(1280, 720), help="WIDTHxHEIGHT of each image")
    p.add_argument(
        "--images", type=NumberArgument(0, 256, is_whole=True), default=1, help="images in a chat's first turn"
    )
    p.add_argument("--words", type=NumberArgument(0, 100_000, is_whole=True), default=30, help="words of each question")
    p.add_argument(
        "--output-tokens", type=NumberArgument(1, 100_000, is_whole=True), default=150, help="mean tokens of an answer"
    )
    p.add_argument(
        "--vary", type=NumberArgument(0, 1), default=0.5, help="answers are shorter or longer by up to this fraction"
    )
    p.add_argument("--turns", type=NumberArgument(1, MAX_TURNS, is_whole=True), default=1, help="turns of each chat")
    p.add_argument(
        "--think-s", type=NumberArgument(0), default=8.0, help="mean seconds between an answer and the next turn"
    )
    p.add_argument("--gpu", default="rtx4090", help="name of the GPU, or file of a profile")
    p.add_argument("--pool", default="", help="pool of the configuration whose model and limits are used")
    p.add_argument("--config", type=Path, default=Path("config/cluster.yaml"))
    p.add_argument(
        "--gpus",
        type=NumberArgument(1, 100_000, is_whole=True),
        help="simulate this number of GPUs instead of searching for it",
    )
    p.add_argument("--price", type=NumberArgument(0), help="price of one GPU for an hour, in any currency")
    p.add_argument("--policy", choices=tuple(POLICIES), default="sticky")
    p.add_argument("--requests", type=NumberArgument(100, 1e8, is_whole=True), help="requests in each simulation")
    p.add_argument("--seed", type=NumberArgument(0, 1e18, is_whole=True), default=1)
    p.add_argument(
        "--engines", type=NumberArgument(1, 1_000_000, is_whole=True), default=10_000, help="engines, for policies"
    )
    p.add_argument(
        "--processes",
        type=NumberArgument(1, 64, is_whole=True),
        default=os.cpu_count() or 1,
        help="processes, for policies",
    )
    p.add_argument("--policies", default=",".join(POLICIES), help="policies to compare")
    p.add_argument("--out", type=Path, default=Path("build/plan"), help="folder for plan.md and plan.html")
    return p


def main(arguments: list[str]) -> int:
    a = parser().parse_args(arguments)
    try:
        return _plan(a, arguments) if a.action == "plan" else _policies(a, arguments)
    except (WrongValue, UnknownGpu, ConfigError) as error:
        print(f"plan: {error}", file=sys.stderr)
        return 2
    except NoSufficientSize as error:
        print(f"plan: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("plan: interrupted before the first result", file=sys.stderr)
        return 130


def read_request(a: argparse.Namespace, rps: float) -> PlanRequest:
    """Returns the plan request of the command line. Raises WrongValue, UnknownGpu, ConfigError."""
    cluster = load(a.config)
    pool = pool_named(cluster, a.pool)
    if a.images > pool.media.images_per_prompt:
        raise WrongValue(
            f"IMAGES={a.images}: pool {pool.name} takes at most {pool.media.images_per_prompt} (media.images_per_prompt)"
        )
    profile = profile_of(a.gpu, pool)
    work = PlannedWorkload(
        width=a.image[0],
        height=a.image[1],
        images=a.images,
        words=a.words,
        tokens_per_word=profile.tokens_per_word,
        output_tokens=a.output_tokens,
        vary=a.vary,
        turns=a.turns,
        think_s=a.think_s,
        min_pixels=pool.media.min_pixels,
        max_pixels=pool.media.max_pixels,
    )
    if work.longest_prompt > pool.max_model_len:
        raise WrongValue(
            f"the last turn can have {work.longest_prompt} tokens, pool {pool.name} takes {pool.max_model_len} "
            "(max_model_len). Use fewer TURNS, OUTPUT_TOKENS, WORDS or IMAGES."
        )
    gpu_spec = gpu_spec_of(profile, pool)
    tries = cluster.gateway.tries
    return PlanRequest(work, gpu_spec, rps, a.p95, a.first_p95, a.goodput, a.policy, tries, a.seed)


def _plan(a: argparse.Namespace, arguments: list[str]) -> int:
    if a.rps is None:
        raise WrongValue("RPS= is missing. Set the number of requests a second.")
    request = read_request(a, a.rps)
    print(f"{request_line(request)}.")
    with progress_bar() as announce:
        capacity_plan = plan(request, announce, a.gpus, a.requests)
    report_tables = tables(capacity_plan, a.price)
    for table in report_tables:
        print_table(table)
    print(f"{verdict(capacity_plan)}\n{caveat(request)}")
    command = f"python -m manyeyes.planner {shlex.join(arguments)}"
    _write(
        a.out,
        {"plan.md": markdown(capacity_plan, a.price, command), "plan.html": html(capacity_plan, a.price, command)},
    )
    if capacity_plan.partial:
        return 130
    return 0 if capacity_plan.outcome and meets_request(request, capacity_plan.outcome) else 1


def _policies(a: argparse.Namespace, arguments: list[str]) -> int:
    names = a.policies.split(",")
    if unknown := [name for name in names if name not in POLICIES]:
        raise WrongValue(f"POLICIES={a.policies}: unknown policy {', '.join(unknown)}. Use {', '.join(POLICIES)}")
    requests = a.requests or 1_000_000
    request = read_request(a, a.rps or 4.0 * a.engines)
    simulated_span = span(request, requests)
    results, code = {}, 0
    with progress_bars(names) as on_progress:
        try:
            for name, outcome in policies.compare(
                request, a.engines, simulated_span, names, min(a.processes, len(names)), on_progress
            ):
                results[name] = outcome
        except KeyboardInterrupt:
            code = 130
    table = policies.table(request, a.engines, [(name, results[name]) for name in names if name in results])
    print_table(table)
    print(f"{request_line(request)}.\n{caveat(request)}")
    if code:
        unfinished = [name for name in names if name not in results or results[name].partial]
        print(f"Interrupted: {', '.join(unfinished)} not finished.")
    command = f"python -m manyeyes.planner {shlex.join(arguments)}"
    body = markdown_table(table.head, table.rows)
    text = f"# {table.title}\n\n{request_line(request)}.\n\n{caveat(request)}\n\n{body}\nMade by `{command}`.\n"
    _write(a.out, {"policies.md": text})
    return code


def _write(folder: Path, pages: dict[str, str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in pages.items():
            (folder / name).write_text(text)
    except OSError as error:
        raise WrongValue(f"{folder}: {error.strerror}. Use another --out.") from None
    print(f"Written: {', '.join(str(folder / name) for name in pages)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
