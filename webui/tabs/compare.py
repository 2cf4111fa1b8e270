"""The Compare and Individual tabs: questions to several models in parallel, with times, side by side."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.events import api

from manyeyes.config.gateway import Concurrency
from webui import samples
from webui.auth import uploads
from webui.chat import comparison as comparisons
from webui.chat.chat_requester import ChatRequester, SamplingSettings
from webui.chat.comparison import EQUALLY_GOOD, Comparison, ModelRun
from webui.files import attachments
from webui.i18n import N_, _
from webui.tabs import controls
from webui.theme import hint_html, status_html

MAX_MODELS = 4
COMPARE_HINT = N_("Choose two or more models and ask a question. The answers appear side by side.")


def build_compare_tab(requester: ChatRequester, concurrency: Concurrency) -> gr.Dropdown:
    """Builds the tab. Returns its model dropdown, which the page fills."""
    models = controls.model_dropdown(_("Models (two to four)"), multiselect=True)
    box = gr.MultimodalTextbox(
        label=_("Your question to all models"),
        placeholder=_("Ask all models. Drop or paste images here."),
        sources=["upload"],
        file_count="multiple",
        file_types=attachments.MEDIA_SUFFIXES,
        elem_classes="askbox",
        lines=1,
        max_lines=6,
    )
    with gr.Row(elem_classes="tools"):
        sample = gr.Button(_("Use a sample"), size="sm", elem_classes="tool")
        as_json = gr.Button(_("Save JSON"), size="sm", elem_classes="tool")
        as_csv = gr.Button(_("Save CSV"), size="sm", elem_classes="tool")
    sampling = controls.sampling_controls()
    outcome = gr.HTML(hint_html(_(COMPARE_HINT)), elem_classes="text-block")
    with gr.Row(elem_classes="lanes"):
        answers = [gr.Markdown(visible=False, elem_classes="lane", container=True) for _ in range(MAX_MODELS)]
    vote = gr.Radio(label=_("Which answer is better?"), choices=[], visible=False)
    # The secret protects nothing: the data is the user's, and all replicas of the page must be able to read it.
    stored = gr.BrowserState([], storage_key="manyeyes-comparisons", secret="manyeyes")
    saved = gr.JSON(visible="hidden")
    events = CompareHandlers(requester)
    box.submit(
        events.run,
        [box, stored, models, *sampling],
        [box, outcome, vote, stored, *answers],
        **controls.queued_event(concurrency.compare, "compare"),
    )
    vote.input(events.vote, [vote, stored], [stored, outcome], **controls.IMMEDIATE_EVENT)
    sample.click(events.sample, None, [box], **controls.IMMEDIATE_EVENT)
    for button, make in ((as_json, events.json), (as_csv, events.csv)):
        controls.save_on_click(button, make, [stored], saved)
    events.mount_api(concurrency)
    return models


class CompareHandlers:
    def __init__(self, requester: ChatRequester) -> None:
        self._requester = requester

    async def run(
        self, request: gr.Request, typed: dict[str, Any], stored: Any, models: list[str] | None, *sampling: Any
    ) -> AsyncIterator[tuple[Any, ...]]:
        chosen = list(dict.fromkeys(models or []))[:MAX_MODELS]
        if len(chosen) < 2 or not (typed["text"].strip() or typed["files"]):
            gr.Info(_("Choose at least two models and enter a question."))
            yield (gr.skip(),) * (4 + MAX_MODELS)
            return
        uploads.hold_files(request.session_hash or "", "compare", typed["files"])
        comparison = Comparison(
            [ModelRun(typed["text"], typed["files"], SamplingSettings(model, *sampling)) for model in chosen]
        )
        yield gr.update(submit_btn=False), "", gr.update(visible=False), gr.skip(), *_run_updates(comparison)
        async for _update in comparison.run(self._requester, controls.own_conversation(request)):
            yield gr.skip(), gr.skip(), gr.skip(), gr.skip(), *_run_updates(comparison)
        now = comparisons.add_comparison(stored, comparison.facts(typed["text"]))
        ballot = gr.update(choices=[*chosen, (_(EQUALLY_GOOD), EQUALLY_GOOD)], value=None, visible=True)
        yield (
            gr.update(submit_btn=True),
            status_html(comparison.summary()),
            ballot,
            now,
            *_run_updates(comparison),
        )

    def vote(self, vote: str, stored: Any) -> tuple[Any, str]:
        now = comparisons.add_vote(stored, vote)
        return now, status_html(_("Thank you. {tally}.", tally=comparisons.tally_votes(now)))

    def sample(self) -> dict[str, Any]:
        return {"text": _("What was bought, and what is the total?"), "files": [str(samples.HERE / "receipt.png")]}

    def json(self, stored: Any) -> dict[str, str] | None:
        return _saved_file(stored, "comparisons.json", "application/json", comparisons.comparisons_json)

    def csv(self, stored: Any) -> dict[str, str] | None:
        return _saved_file(stored, "comparisons.csv", "text/csv", comparisons.comparisons_csv)

    def mount_api(self, concurrency: Concurrency) -> None:
        async def compare(
            request: gr.Request,
            text: str,
            models: list[str],
            files: list[Any] | None = None,
            temperature: float = 0.7,
            top_p: float = 0.8,
            max_tokens: int = 1024,
        ) -> dict[str, Any]:
            """Sends a question to all models in parallel: {"speed_up", "answers": [{"model", "text", ...}]}."""
            names = list(dict.fromkeys(models))[:MAX_MODELS]
            sampling = [SamplingSettings(model, "", temperature, top_p, max_tokens) for model in names]
            comparison = Comparison([ModelRun(text, controls.file_paths(files), settings) for settings in sampling])
            async for _update in comparison.run(self._requester, controls.own_conversation(request)):
                pass
            return comparison.facts(text)

        api(compare, api_name="compare", concurrency_limit=concurrency.api_clients)


def _run_updates(comparison: Comparison) -> list[Any]:
    verdicts = comparison.verdicts()
    updates: list[Any] = [
        gr.update(value=comparisons.run_markdown(run, verdict), visible=True)
        for run, verdict in zip(comparison.runs, verdicts, strict=True)
    ]
    return updates + [gr.update(visible=False)] * (MAX_MODELS - len(updates))


def _saved_file(stored: Any, name: str, kind: str, make: Any) -> dict[str, str] | None:
    if not comparisons.valid_comparisons(stored):
        gr.Info(_("There is nothing to save yet. Run a comparison first."))
        return None
    return {"name": name, "kind": kind, "text": make(stored)}


CARDS = 3
SAMPLES = (
    (N_("What was bought, and what is the total?"), "receipt.png"),
    (N_("What does this chart show?"), "chart.png"),
    (N_("Where is the cup?"), "before.png"),
)
INDIVIDUAL_HINT = N_("Give each model a prompt and an image. Empty cards are skipped.")


@dataclass(frozen=True)
class PromptCard:
    model: gr.Dropdown
    prompt: gr.Textbox
    files: gr.File
    answer: gr.Markdown


def build_individual_tab(requester: ChatRequester, concurrency: Concurrency) -> list[gr.Dropdown]:
    """Builds the tab. Returns its model dropdowns, which the page fills."""
    with gr.Row(elem_classes="tools"):
        go = gr.Button(_("Run all"), variant="primary", size="sm")
        sample = gr.Button(_("Use the samples"), size="sm", elem_classes="tool")
    outcome = gr.HTML(hint_html(_(INDIVIDUAL_HINT)), elem_classes="text-block")
    with gr.Row(elem_classes="lanes cards"):
        cards = [_prompt_card(number) for number in range(1, CARDS + 1)]
    sampling = controls.sampling_controls()
    events = IndividualHandlers(requester)
    inputs = [part for card in cards for part in (card.model, card.prompt, card.files)]
    go.click(
        events.run,
        [*inputs, *sampling],
        [outcome, *(card.answer for card in cards)],
        **controls.queued_event(concurrency.individual, "individual"),
    )
    sample.click(
        events.samples,
        None,
        [part for card in cards for part in (card.prompt, card.files)],
        **controls.IMMEDIATE_EVENT,
    )
    events.mount_api(concurrency)
    return [card.model for card in cards]


def _prompt_card(number: int) -> PromptCard:
    with gr.Column(elem_classes="card", min_width=260):
        return PromptCard(
            controls.model_dropdown(_("Model {number}", number=number)),
            gr.Textbox(label=_("Prompt {number}", number=number), lines=2, max_lines=6),
            gr.File(
                label=_("Images or a video {number}", number=number),
                file_count="multiple",
                file_types=attachments.MEDIA_SUFFIXES,
                type="filepath",
                height=110,
            ),
            gr.Markdown(elem_classes="lane"),
        )


class IndividualHandlers:
    def __init__(self, requester: ChatRequester) -> None:
        self._requester = requester

    async def run(self, request: gr.Request, *inputs: Any) -> AsyncIterator[tuple[Any, ...]]:
        cards, sampling = inputs[: 3 * CARDS], inputs[3 * CARDS :]
        runs: list[ModelRun | None] = []
        for model, prompt, files in zip(cards[::3], cards[1::3], cards[2::3], strict=True):
            used = model and ((prompt or "").strip() or files)
            runs.append(ModelRun(prompt or "", files or [], SamplingSettings(model, *sampling)) if used else None)
        uploads.hold_files(
            request.session_hash or "", "individual", [file for run in runs if run for file in run.files]
        )
        comparison = Comparison([run for run in runs if run])
        if not comparison.runs:
            gr.Info(_("Give at least one model a prompt or an image, or use the samples."))
            yield (gr.skip(),) * (1 + CARDS)
            return
        async for _update in comparison.run(self._requester, controls.own_conversation(request)):
            yield "", *_answer_texts(runs, comparison)
        yield status_html(comparison.summary()), *_answer_texts(runs, comparison)

    def samples(self) -> list[Any]:
        return [part for prompt, file in SAMPLES for part in (_(prompt), [str(samples.HERE / file)])]

    def mount_api(self, concurrency: Concurrency) -> None:
        async def individual(request: gr.Request, questions: list[dict[str, Any]]) -> dict[str, Any]:
            """Runs [{"model", "text", "files", "temperature", "max_tokens"}, ...] in parallel.

            Returns {"speed_up", "answers"}.
            """
            runs = [
                ModelRun(
                    str(question.get("text", "")),
                    controls.file_paths(question.get("files")),
                    SamplingSettings(
                        str(question.get("model") or "auto"),
                        temperature=float(question.get("temperature", 0.7)),
                        max_tokens=int(question.get("max_tokens", 1024)),
                    ),
                )
                for question in questions[:16]
            ]
            comparison = Comparison(runs)
            async for _update in comparison.run(self._requester, controls.own_conversation(request)):
                pass
            return comparison.facts("")

        api(individual, api_name="individual", concurrency_limit=concurrency.api_clients)


def _answer_texts(runs: list[ModelRun | None], comparison: Comparison) -> list[Any]:
    verdicts = iter(comparison.verdicts())
    return [comparisons.run_markdown(run, next(verdicts)) if run else "" for run in runs]
