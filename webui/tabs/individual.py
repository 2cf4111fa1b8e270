"""The Individual tab: another prompt and another picture for each model, run together, each with its own times."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.events import api

from manyeyes.config.gateway import AtOnce
from webui import samples
from webui.auth import uploads
from webui.chat.chat_requester import ChatRequester
from webui.chat.comparison import (
    Comparison,
    ModelRun,
    comparison_facts,
    comparison_summary,
    run_comparison,
    run_markdown,
    speed_verdicts,
)
from webui.chat.sampling_settings import SamplingSettings
from webui.cluster.gateway_client import KEY_HEADER
from webui.files import media_parts
from webui.i18n.translations import N_, _
from webui.tabs.chat_actions import file_paths
from webui.tabs.controls import IMMEDIATE_EVENT, model_dropdown, queued_event, sampling_controls
from webui.theme import hint_html, status_html

CARDS = 3
SAMPLES = (
    (N_("What was bought, and what is the total?"), "receipt.png"),
    (N_("What does this chart show?"), "chart.png"),
    (N_("Where does the cup stand?"), "before.png"),
)
EMPTY = N_("Give each model its own prompt and picture. What is empty is left out.")


@dataclass(frozen=True)
class PromptCard:
    model: gr.Dropdown
    prompt: gr.Textbox
    files: gr.File
    answer: gr.Markdown


def build_individual_tab(requester: ChatRequester, at_once: AtOnce) -> list[gr.Dropdown]:
    """The models' dropdowns, to be filled."""
    with gr.Row(elem_classes="tools"):
        go = gr.Button(_("Run all"), variant="primary", size="sm")
        sample = gr.Button(_("Use the samples"), size="sm", elem_classes="tool")
    outcome = gr.HTML(hint_html(_(EMPTY)), elem_classes="said")
    with gr.Row(elem_classes="lanes cards"):
        cards = [_prompt_card(number) for number in range(1, CARDS + 1)]
    sampling = sampling_controls()
    events = IndividualHandlers(requester)
    asked = [part for card in cards for part in (card.model, card.prompt, card.files)]
    go.click(
        events.ask,
        [*asked, *sampling],
        [outcome, *(card.answer for card in cards)],
        **queued_event(at_once.individual, "individual"),
    )
    sample.click(
        events.samples,
        None,
        [part for card in cards for part in (card.prompt, card.files)],
        **IMMEDIATE_EVENT,
    )
    events.mount_api(at_once)
    return [card.model for card in cards]


def _prompt_card(number: int) -> PromptCard:
    with gr.Column(elem_classes="card", min_width=260):
        return PromptCard(
            model_dropdown(_("Model {number}", number=number)),
            gr.Textbox(label=_("Prompt {number}", number=number), lines=2, max_lines=6),
            gr.File(
                label=_("Pictures or a video {number}", number=number),
                file_count="multiple",
                file_types=media_parts.MEDIA_SUFFIXES,
                type="filepath",
                height=110,
            ),
            gr.Markdown(elem_classes="lane"),
        )


class IndividualHandlers:
    def __init__(self, requester: ChatRequester) -> None:
        self._asker = requester

    async def ask(self, request: gr.Request, *asked: Any) -> AsyncIterator[tuple[Any, ...]]:
        cards, sampling = asked[: 3 * CARDS], asked[3 * CARDS :]
        runs: list[ModelRun | None] = []
        for model, prompt, files in zip(cards[::3], cards[1::3], cards[2::3], strict=True):
            used = model and ((prompt or "").strip() or files)
            runs.append(ModelRun(prompt or "", files or [], SamplingSettings(model, *sampling)) if used else None)
        uploads.hold_files(
            request.session_hash or "", "individual", [file for run in runs if run for file in run.files]
        )
        comparison = Comparison([run for run in runs if run])
        if not comparison.runs:
            gr.Info(_("Give at least one model a prompt or a picture, or use the samples."))
            yield (gr.skip(),) * (1 + CARDS)  # Gradio empties every output of a generator that ends without a yield
            return
        visit, key = f"{request.session_hash}-{uuid.uuid4().hex[:8]}", request.headers.get(KEY_HEADER) or ""
        async for _update in run_comparison(comparison, self._asker, visit, key):
            yield "", *_answer_texts(runs, comparison)
        yield status_html(comparison_summary(comparison)), *_answer_texts(runs, comparison)

    def samples(self) -> list[Any]:
        return [part for prompt, file in SAMPLES for part in (_(prompt), [str(samples.HERE / file)])]

    def mount_api(self, at_once: AtOnce) -> None:
        async def individual(request: gr.Request, questions: list[dict[str, Any]]) -> dict[str, Any]:
            """[{"model", "text", "files", "temperature", "max_tokens"}, ...] at once: {"speed_up", "answers"}."""
            runs = [
                ModelRun(
                    str(question.get("text", "")),
                    file_paths(question.get("files")),
                    SamplingSettings(
                        str(question.get("model") or "auto"),
                        temperature=float(question.get("temperature", 0.7)),
                        max_tokens=int(question.get("max_tokens", 1024)),
                    ),
                )
                for question in questions[:16]
            ]
            comparison = Comparison(runs)
            key = request.headers.get(KEY_HEADER) or ""
            async for _update in run_comparison(comparison, self._asker, uuid.uuid4().hex, key):
                pass
            return comparison_facts(comparison, "")

        api(individual, api_name="individual", concurrency_limit=at_once.programs)


def _answer_texts(runs: list[ModelRun | None], comparison: Comparison) -> list[Any]:
    verdicts = iter(speed_verdicts(comparison))
    return [run_markdown(run, next(verdicts)) if run else "" for run in runs]
