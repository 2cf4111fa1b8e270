"""`python -m benchmarks.report FOLDER`: writes docs/benchmarks.md and docs/images/benchmarks.svg from raw results."""

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

PICTURE = "images/benchmarks.svg"

HOW = """\
## How it is measured

* Every gateway gets exactly the same requests, made from a seed (`benchmarks/load.py`): byte-unique JPEGs of about 150 KB (200 KB as
  base64), streamed answers, at most 32 tokens. A user waits for an answer before the next question (a closed loop), and pauses
  0.05 to 0.15 s; RPS is all answered requests over the time from the first one to the last one. Users arrive over 2 s.
* Users are OpenAI clients as they are: the whole conversation is sent again each turn, one keep-alive connection each, the same
  API key, no session header unless a table says so. Each has an address of its own (127.2.0.x).
* Each run has new engines with cold caches and a new gateway. Four requests per engine about other pictures warm up, and are
  not counted. Repeats are interleaved: each repeat goes once through all gateways, and starts with another one.
* Engines are *emulated* (`manyeyes/emulator/`, profile RTX 4090 with Qwen3-VL-4B-FP8): prefix cache, image preprocessing on one
  thread, continuous batching. Their times are a model of a GPU, not a GPU. *From cache* is `vllm:prefix_cache_hits_total`
  over `vllm:prefix_cache_queries_total`, from the engines' own counters. The most that is possible is counted by giving the same
  work to one engine that forgets nothing.
* *No gateway* is a bound, not a competitor: each client goes to an engine itself and stays there for its conversation.
* CPU is of all processes of a gateway (CPU clocks of the kernel, in nanoseconds), less what it uses while idle, over the
  requests. Behind it is an nginx that answers at once, so nothing here is emulated; 4 connections, not streamed, chats in their
  second turn. For ManyEyes it is nginx and the controller together.
* Added latency: one client sends each request twice, past the gateway and through it, in turns, on keep-alive connections; the
  differences of these pairs are what is shown. Streaming: the same, against one *emulated* engine that knows the picture.
* The users' process measures its own CPU; above 85 % of a core, or with 90 % of the machine busy, a note below the table says so.

## What to keep in mind

* Clients, gateway and engines share the cores of one machine. A gateway that needs much CPU slows the engines beside it too; on
  a machine of its own it would do better. What it costs is in the CPU tables.
* The engines are this project's own emulator, and chats about pictures are the work this gateway was made for. The tables of
  single pictures, of one document and of text show where that helps less, or not at all.
* A closed loop hides waiting: users who wait send less. That favours no gateway, but a queue is worse than its p95 here.
* What the others can do besides (Kubernetes, prefill and decode apart, many providers, budgets) is not measured.
"""


def page(results: BenchmarkResults, raw: str) -> str:
    about = results.about["machine"]
    extent = results.about["extent"]
    engines = results.first_engines
    counts = sorted({one.job.engines for one in results.finished if one.job.kind == "work"})
    busy = sorted(one.busy_before for one in results.finished)
    quick = (
        "\n**This was a quick run on fewer users: it shows that the program works. Do not quote its figures.**\n"
        if results.about["quick"]
        else ""
    )
    head = f"""\
# Gateways side by side

Made by `{about["command"]}` (`manyeyes bench gateway` runs all of it) from raw results; do not edit. Median (lowest-highest) of
{results.repeats} interleaved repeat(s). Everything with engines is *emulated*: compare gateways, do not read a GPU's speed from it.
{quick}
| what | |
|---|---|
| commit | {about["commit"]} |
| machine | {about["cpu"]}, {about["cores"]} cores, {about["memory_gib"]} GiB, {about["system"]}, no GPU; clients, gateway and engines share it |
| date | {about["date"]} |
| engines' clock | {extent["speed"]:g} times the wall's |
| used by others before a run | median {busy[len(busy) // 2] if busy else 0:.0%} of the machine, at most {busy[-1] if busy else 0:.0%} |
| raw results | `{raw}` |

## What we hold ourselves to

{_targets(targets(results))}
"""
    parts = [head, f"![Chats on {engines} engines]({PICTURE})\n", *(_works(results, engines, counts))]
    parts += [
        _section("CPU of the gateway for one request", tables.cpu_table(results)),
        _section("What a gateway adds for one client, not streamed", tables.latency_table(results)),
        _section("Streaming through a gateway (*emulated* engine)", tables.stream_table(results)),
        HOW,
        _settings(results),
        _missing(results),
    ]
    return "\n".join(part for part in parts if part)


def _targets(found: list[DesignTarget]) -> str:
    words = {True: "met", False: "**not met**", None: "not measured"}
    return markdown_table(
        ["what", "wanted", "found", ""], [[one.what, one.wanted, one.found, words[one.met]] for one in found]
    )


def _works(results: BenchmarkResults, first: int, counts: list[int]) -> list[str]:
    parts = []
    extent = results.about["extent"]
    for engines in [first, *(count for count in counts if count != first)]:
        for work in works.ALL.values():
            users = max(2, round(work.users_per_engine * engines * extent["users_share"]))
            each = max(1, round(work.conversations_per_user * extent["conversations_share"]))
            best = results.best_share(engines, work.name)
            said = f"{users} users, {each} conversation(s) each, on {engines} *emulated* engines."
            if best is not None:
                said += f" At most {best:.3f} of the prompt tokens can come from cache."
            body = tables.work_table(results, engines, work.name)
            if body:
                parts.append(_section(f"{work.title}, {engines} engines", f"{said}\n\n{body}"))
            if engines == first and work.name == "chat":
                parts += _headers(results, first)
                cost = tables.cost_table(results, first)
                parts.append(_section("What the gateways used during these chats (*emulated* engines)", cost))
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
            said = "the conversation's id" if headers == 1 else "the conversation's id and the user's"
            title = f"The same chats, with {headers} session header(s), {engines} engines"
            text = f"Clients are changed to send {said}: {'; '.join(sent)}. *Emulated* engines; ManyEyes is as above, without any."
            parts.append(_section(title, f"{text}\n\n{body}"))
    return parts


def _settings(results: BenchmarkResults) -> str:
    lines = []
    for gateway in all_gateways.ALL:
        if gateway.name in results.about["versions"]:
            for number, setting in enumerate(gateway.settings):
                source = f"<{setting.source}>" if setting.source.startswith("http") else f"`{setting.source}`"
                title = f"{gateway.name}, {results.about['versions'][gateway.name]}" if number == 0 else ""
                lines.append([title, setting.what, setting.why, source])
    return _section("Versions and settings", markdown_table(["gateway", "setting", "why", "from"], lines))


def _missing(results: BenchmarkResults) -> str:
    lines = [f"* {name}: {why}" for name, why in results.about["missing"].items()]
    failed = {one.job.gateway: one.failed.splitlines()[0] for one in results.finished if one.failed}
    well = {one.job.gateway for one in results.finished if not one.failed}
    lines += [f"* {name}: {why[:300]}" for name, why in failed.items() if name not in well and name != NO_GATEWAY]
    return _section("Not run", "\n".join(lines) + "\n") if lines else ""


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("folder", type=Path, help="of raw results, as `python -m benchmarks` names it")
    parser.add_argument("--docs", type=Path, help="where to write; default docs/, and FOLDER for a quick run")
    asked = parser.parse_args(arguments)
    if not (asked.folder / "about.json").exists():
        print(
            f"{asked.folder} holds no results: about.json is missing. Run `python -m benchmarks --out {asked.folder}` first."
        )
        return 2
    results = load(asked.folder)
    docs = asked.docs or (asked.folder if results.about["quick"] else ROOT / "docs")
    folder = asked.folder.resolve()
    raw = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder.name
    (docs / PICTURE).parent.mkdir(parents=True, exist_ok=True)
    (docs / PICTURE).write_text(draw_chart(results, results.first_engines))
    (docs / "benchmarks.md").write_text(page(results, f"{raw}/runs.jsonl"))
    print(f"{docs / 'benchmarks.md'} and {PICTURE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
