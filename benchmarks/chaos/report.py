"""A run's outcomes as Markdown and as one self-contained page. Pure."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from benchmarks.chaos.fault_result import FaultResult
from manyeyes.charts.templates import render_page

EMULATED = (
    "Emulated: no GPU took part. Engines are stand-ins with the timing of the named card; gateway, controller, containers and faults are real. "
    "A real engine takes longer to start again."
)
HEADS = (
    "fault", "may cost", "answered", "failed", "cut", "handed on", "twice", "asked again, lost after it",
    "users, s", "whole again, s", "P95 before / during / after, s", "kept",
)  # fmt: skip
NOTES = (
    "**failed**: no first byte came, or an error did; **cut**: broken after the first byte, which the user sees. Both are counted from the strike to the last look, by users who keep asking.",
    "**handed on**: the gateway asked a second engine, and the user saw nothing of it. **twice**: one request was answered twice (by its id in the gateway's log).",
    "**asked again, lost after it**: a client that asks four times a second and, as OpenAI's own client, asks again twice (after 0.5 s and 1 s): how many of its questions needed that, and how many failed all the same.",
    "**users**: seconds from the strike to the end of the last request that failed or was cut. **whole again**: until every container runs, the struck one is healthy, and every engine gets requests.",
    "**P95**: of whole answers, in the seconds before the strike, until whole again, and after.",
)
GATEWAY = (
    "The gateway is one process on one host: while it is away nobody is answered, and what it had in flight is lost; Docker starts it again. "
    "nginx writes its log once a second, so up to a second of lines is lost with it: {unlogged} answered requests are in no log."
)


@dataclass(frozen=True)
class ChaosRun:
    """What was done, in words for people."""

    cluster: str
    emulated: bool
    load: str
    machine: str
    command: str
    partial: str = ""


def headline(outcomes: Sequence[FaultResult]) -> list[tuple[str, str]]:
    free = [one for one in outcomes if one.costs != "in flight"]
    lost = sum(one.failed for one in free)
    kept = sum(not one.broken for one in outcomes)
    found = [
        (f"{kept} of {len(outcomes)}", "faults cost no more than they may"),
        (
            f"{lost}",
            f"requests failed before their first byte in the {len(free)} faults that spare the gateway and lone engines",
        ),
        (
            f"{sum(one.twice for one in outcomes)}",
            f"of {sum(one.answered for one in outcomes)} requests answered twice",
        ),
    ]
    if outcomes:
        found.append((f"{max(one.whole_again_s for one in outcomes):.1f} s", "until everything was as before, at most"))
    return found


def cells(one: FaultResult) -> list[str]:
    return [
        one.title,
        one.costs,
        str(one.answered),
        str(one.failed),
        str(one.cut),
        str(one.handed_on),
        str(one.twice),
        f"{one.patient_asked_again}, {one.patient_lost} of {one.patient_asked}",
        f"{one.users_recovered_s:.1f}",
        f"{one.whole_again_s:.1f}",
        f"{one.p95_before_s:.2f} / {one.p95_during_s:.2f} / {one.p95_after_s:.2f}",
        one.broken or "yes",
    ]


def remarks(outcomes: Sequence[FaultResult]) -> list[str]:
    """What else is to be known of single faults."""
    found = [f"{one.name}: {note}" for one in outcomes for note in one.notes]
    found += [f"{one.name}: " + ", ".join(f"{n} x {why}" for why, n in one.why.items()) for one in outcomes if one.why]
    struck = [one for one in outcomes if "gateway" in one.name]
    return [*found, GATEWAY.format(unlogged=sum(one.unlogged for one in struck))] if struck else found


def markdown(about: ChaosRun, outcomes: Sequence[FaultResult]) -> str:
    parts = [f"# Chaos report: {about.cluster}{' (emulated)' if about.emulated else ''}", ""]
    parts += [f"**{EMULATED}**", ""] if about.emulated else []
    parts += [f"> Partial: {about.partial}", ""] if about.partial else []
    parts += [f"* **{figure}** {what}" for figure, what in headline(outcomes)]
    parts += ["", "| " + " | ".join(HEADS) + " |", "|---" * len(HEADS) + "|"]
    parts += ["| " + " | ".join(cells(one)) + " |" for one in outcomes]
    parts += ["", *[f"* {line}" for line in (*NOTES, *remarks(outcomes))]]
    return "\n".join([*parts, "", f"{about.load}. {about.machine}.", "", f"    {about.command}", ""])


def page(about: ChaosRun, outcomes: Sequence[FaultResult]) -> str:
    alarms = [f"Partial: {about.partial}"] if about.partial else []
    return render_page(
        Path(__file__).with_name("report.html.j2"),
        about=about,
        emulated_notice=EMULATED,
        alarms=alarms + [f"{one.title}: {one.broken}" for one in outcomes if one.broken],
        cards=headline(outcomes),
        bars=Markup(_bars(outcomes)),
        heads=HEADS,
        rows=[cells(one) for one in outcomes],
        notes=[_bold(line) for line in (*NOTES, *remarks(outcomes))],
    )


def _bold(line: str) -> Markup:
    """**word** as in Markdown."""
    parts = html.escape(line).split("**")
    return Markup("").join(Markup(f"<b>{part}</b>" if at % 2 else part) for at, part in enumerate(parts))


def _bars(outcomes: Sequence[FaultResult]) -> str:
    most = max((max(one.whole_again_s, one.users_recovered_s) for one in outcomes), default=1) or 1
    height = 24 * len(outcomes)
    parts = [f'<svg viewBox="0 0 900 {height}" role="img" aria-label="seconds to recover, by fault">']
    for at, one in enumerate(outcomes):
        y = 24 * at
        whole, users = (500 * seconds / most for seconds in (one.whole_again_s, one.users_recovered_s))
        parts.append(f'<text class="label" x="250" y="{y + 15}" text-anchor="end">{html.escape(one.name)}</text>')
        parts.append(f'<rect class="share s1" x="260" y="{y + 3}" width="{whole:.1f}" height="16" rx="2"/>')
        parts.append(f'<rect x="260" y="{y + 7}" width="{users:.1f}" height="8" fill="var(--third)"/>')
        parts.append(
            f'<text class="label" x="{270 + max(whole, users):.1f}" y="{y + 15}">{one.whole_again_s:.1f} s</text>'
        )
    return "".join([*parts, "</svg>"])
