"""`python -m benchmarks.report FOLDER`: writes docs/benchmarks/gateways.md and gateways.svg from raw results."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import gateways as all_gateways
from benchmarks import load as works
from benchmarks import tables
from benchmarks.results import BenchmarkResults, DesignTarget, load, targets
from benchmarks.runner import NO_GATEWAY
from benchmarks.tables import draw_chart
from loadtest.result_files import ROOT
from manyeyes.charts.templates import markdown_table

CHART = "gateways.svg"

HOW = """\
## How it is measured

* Every gateway gets exactly the same requests, made from a seed (`benchmarks/load.py`): JPEGs of about 150 KB (200 KB as
  base64), each with different bytes, and streamed answers of at most 32 tokens. A user waits for an answer before the next
  question (a closed loop) and pauses 0.05 to 0.15 s. RPS is the number of answered requests divided by the time from the first
  to the last request. Users start within 2 s.
* Users behave like unmodified OpenAI clients: each turn sends the whole conversation again, on one keep-alive connection per
  user, with the same API key, and without a session header unless a table lists one. Each user has a different source address (127.2.0.x).
* Each run starts new engines with cold caches and a new gateway. Four warm-up requests per engine, with other images, are not
  counted. Repeats are interleaved: each repeat runs all gateways once and starts with a different gateway.
* Engines are *emulated* (`manyeyes/emulator/`, profile RTX 4090 with Qwen3-VL-4B-FP8): prefix cache, image preprocessing on one
  thread, continuous batching. Their times are a model of a GPU, not a GPU. *From cache* is `vllm:prefix_cache_hits_total`
  divided by `vllm:prefix_cache_queries_total`, from the engines' counters. The highest possible value is measured by sending the
  same work to one engine with unlimited caches.
* *No gateway* is a bound, not a competitor: each client connects to an engine directly and uses it for the whole conversation.
* CPU is the CPU time of all processes of a gateway (kernel CPU clocks, nanosecond resolution), minus its idle use, per request.
  The upstream is an nginx that answers immediately, so this measurement is not emulated. It uses 4 connections, without
  streaming, and chats in their second turn. For ManyEyes it is the sum of nginx and the controller.
* Added latency: one client sends each request twice, directly and through the gateway, in alternating order, on keep-alive
  connections; the table shows the differences of these pairs. Streaming: the same with one *emulated* engine that has the image in its cache.
* The users' process measures its own CPU use. A note below a table reports more than 85 % of a core, or more than 90 % of the machine.

## Limits of this comparison

* Clients, gateway and engines share the cores of one machine. A gateway that uses much CPU also slows down the engines; on
  a separate machine it would do better. The CPU tables show its cost.
* The engines are this project's emulator, and chats about images are the work that this gateway is designed for. The tables of
  single images, of one document and of text show where it helps less or not at all.
* A closed loop hides waiting time, because users who wait send fewer requests. That favours no gateway, but queues are longer than
  the p95 here shows.
* Other features of the other gateways (Kubernetes, separate prefill and decode, many providers, budgets) are not measured.
"""


def page(results: BenchmarkResults, raw: str) -> str:
    machine = results.metadata["machine"]
    extent = results.metadata["extent"]
    engines = results.first_engines
    counts = sorted({result.job.engines for result in results.finished if result.job.kind == "work"})
    busy = sorted(result.busy_before for result in results.finished)
    quick = (
        "\n**This was a quick run with fewer users: it shows that the program works. Do not quote its figures.**\n"
        if results.metadata["quick"]
        else ""
    )
    head = f"""\
# Comparison of gateways

Made by `{machine["command"]}` (`manyeyes bench gateway` runs all of it) from raw results; do not edit. Median (lowest-highest) of
{results.repeats} interleaved repeat(s). Engines are *emulated*: the figures compare gateways and do not show the speed of a GPU.
{quick}
| what | |
|---|---|
| commit | {machine["commit"]} |
| machine | {machine["cpu"]}, {machine["cores"]} cores, {machine["memory_gib"]} GiB, {machine["system"]}, no GPU; clients, gateway and engines share it |
| date | {machine["date"]} |
| engines' clock | {extent["speed"]:g} times the wall clock |
| CPU used by other processes before a run | median {busy[len(busy) // 2] if busy else 0:.0%} of the machine, at most {busy[-1] if busy else 0:.0%} |
| raw results | `{raw}` |

## Design targets

{_targets(targets(results))}
"""
    parts = [head, f"![Chats on {engines} engines]({CHART})\n", *(_works(results, engines, counts))]
    parts += [
        _section("CPU of the gateway for one request", tables.cpu_table(results)),
        _section("Latency added by a gateway for one client, not streamed", tables.latency_table(results)),
        _section("Streaming through a gateway (*emulated* engine)", tables.stream_table(results)),
        HOW,
        _settings(results),
        _missing(results),
    ]
    return "\n".join(part for part in parts if part)


def _targets(design_targets: list[DesignTarget]) -> str:
    verdicts = {True: "met", False: "**not met**", None: "not measured"}
    return markdown_table(
        ["what", "target", "measured", ""],
        [[target.label, target.required, target.measured, verdicts[target.met]] for target in design_targets],
    )


def _works(results: BenchmarkResults, first: int, counts: list[int]) -> list[str]:
    parts = []
    extent = results.metadata["extent"]
    for engines in [first, *(count for count in counts if count != first)]:
        for work in works.ALL.values():
            users = max(2, round(work.users_per_engine * engines * extent["users_share"]))
            each = max(1, round(work.conversations_per_user * extent["conversations_share"]))
            best = results.best_share(engines, work.name)
            description = f"{users} users, {each} conversation(s) each, on {engines} *emulated* engines."
            if best is not None:
                description += f" At most {best:.3f} of the prompt tokens can come from cache."
            body = tables.work_table(results, engines, work.name)
            if body:
                parts.append(_section(f"{work.title}, {engines} engines", f"{description}\n\n{body}"))
            if engines == first and work.name == "chat":
                parts += _headers(results, first)
                cost = tables.cost_table(results, first)
                parts.append(_section("CPU and memory of the gateways during these chats (*emulated* engines)", cost))
    return parts


def _headers(results: BenchmarkResults, engines: int) -> list[str]:
    names = {gateway.name: gateway.headers for gateway in all_gateways.ALL}
    parts = []
    for headers in (1, 2):
        body = tables.work_table(results, engines, "chat", headers)
        if body:
            sent = sorted(
                {", ".join(names.get(r.gateway, ())[:headers]) for r in results.rows("work", engines, "chat", headers)}
            )
            header_names = "the conversation's id" if headers == 1 else "the conversation's id and the user's"
            title = f"The same chats, with {headers} session header(s), {engines} engines"
            text = f"Clients also send {header_names}: {'; '.join(sent)}. *Emulated* engines; ManyEyes as above, without a header."
            parts.append(_section(title, f"{text}\n\n{body}"))
    return parts


def _settings(results: BenchmarkResults) -> str:
    lines = []
    for gateway in all_gateways.ALL:
        if gateway.name in results.metadata["versions"]:
            for number, setting in enumerate(gateway.settings):
                source = f"<{setting.source}>" if setting.source.startswith("http") else f"`{setting.source}`"
                title = f"{gateway.name}, {results.metadata['versions'][gateway.name]}" if number == 0 else ""
                lines.append([title, setting.name, setting.reason, source])
    return _section("Versions and settings", markdown_table(["gateway", "setting", "reason", "source"], lines))


def _missing(results: BenchmarkResults) -> str:
    lines = [f"* {name}: {reason}" for name, reason in results.metadata["missing"].items()]
    failed = {result.job.gateway: result.failed.splitlines()[0] for result in results.finished if result.failed}
    well = {result.job.gateway for result in results.finished if not result.failed}
    lines += [f"* {name}: {reason[:300]}" for name, reason in failed.items() if name not in well and name != NO_GATEWAY]
    return _section("Not run", "\n".join(lines) + "\n") if lines else ""


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of raw results, as printed by `python -m benchmarks`")
    parser.add_argument("--docs", type=Path, help="output folder; default docs/benchmarks, for a quick run FOLDER")
    options = parser.parse_args(arguments)
    if not (options.folder / "about.json").exists():
        print(
            f"{options.folder} has no results: about.json is missing. Run `python -m benchmarks --out {options.folder}` first."
        )
        return 2
    results = load(options.folder)
    docs = options.docs or (options.folder if results.metadata["quick"] else ROOT / "docs/benchmarks")
    folder = options.folder.resolve()
    raw = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder.name
    (docs / CHART).parent.mkdir(parents=True, exist_ok=True)
    (docs / CHART).write_text(draw_chart(results, results.first_engines))
    (docs / "gateways.md").write_text(page(results, f"{raw}/runs.jsonl"))
    print(f"{docs / 'gateways.md'} and {CHART}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
