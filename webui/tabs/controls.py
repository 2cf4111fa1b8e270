"""Shared parts of the tabs: event options, sampling controls and model dropdowns."""

import uuid
from collections.abc import Collection
from typing import Any

import gradio as gr

from webui.chat.completion_stream import Visitor
from webui.cluster.gateway_client import KEY_HEADER, PoolStatus
from webui.i18n import N_, _

PRIVATE_EVENT: dict[str, Any] = {"show_progress": "hidden", "api_name": "page", "api_visibility": "private"}
"""Event options for the page itself. Programs cannot see these events."""
IMMEDIATE_EVENT: dict[str, Any] = PRIVATE_EVENT | {"queue": False}


def own_conversation(request: gr.Request) -> Visitor:
    """Returns a new conversation for a run that is not a chat, so that the gateway spreads runs over the engines."""
    return Visitor(f"{request.session_hash or ''}-{uuid.uuid4().hex[:8]}", request.headers.get(KEY_HEADER) or "")


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raises gr.Error if `value` is not one of the `choices` of the API parameter `name`."""
    if value not in choices:
        raise gr.Error(
            _(
                "{name}: expected one of {choices}; got {value}.",
                name=name,
                choices=", ".join(choices),
                value=repr(value),
            )
        )


def file_paths(files: list[Any] | None) -> list[str]:
    """Returns the paths of gradio_client.handle_file() results. Whether they may be read is checked later."""
    return [str(file["path"]) if isinstance(file, dict) else str(file) for file in files or []]


def save_on_click(button: gr.Button, make: Any, inputs: list[Any], saved: gr.JSON) -> None:
    """A click makes the browser save the file that `make` returns as {"name", "kind", "text"}; None: no file."""
    button.click(make, inputs, [saved], **IMMEDIATE_EVENT).then(
        None, [saved], None, js="(file) => { window.manyeyesSave(file); }"
    )


def queued_event(limit: int, queue: str) -> dict[str, Any]:
    """Returns event options: at most `limit` events of this queue run at the same time."""
    return PRIVATE_EVENT | {"concurrency_limit": limit, "concurrency_id": queue}


def sampling_controls(
    temperature: float = 0.7, top_p: float = 0.8, max_tokens: int = 1024, longest: int = 1280
) -> list[gr.components.Component]:
    """Returns system, temperature, top-p, max tokens, seed and longest side, in the order of SamplingSettings."""
    with gr.Accordion(_("Settings"), open=False, elem_classes="settings"):
        return [
            gr.Textbox(label=_("System prompt"), lines=1, max_lines=6),
            gr.Slider(0, 2, value=temperature, step=0.05, label=_("Temperature")),
            gr.Slider(0.05, 1, value=top_p, step=0.05, label=_("Top-p")),
            gr.Slider(16, 8192, value=max_tokens, step=16, label=_("Max tokens")),
            gr.Textbox(label=_("Seed"), placeholder=_("random"), max_lines=1),
            gr.Slider(256, 4096, value=longest, step=64, label=_("Longest side of an image (pixels)")),
        ]


def model_dropdown(label: str = N_("Model"), multiselect: bool = False) -> gr.Dropdown:
    """Returns an empty dropdown. The page fills it with the gateway's models."""
    return gr.Dropdown(label=_(label), choices=[], allow_custom_value=True, multiselect=multiselect)


def model_choice_updates(models: list[str], single: int, in_turn: int, pools: list[PoolStatus] | None) -> list[Any]:
    """Returns updates for `single` single-model dropdowns, Compare's, and `in_turn` dropdowns with different models."""
    if not models:
        return [gr.skip()] * (single + 1 + in_turn)
    names = [pool.name for pool in pools or [] if pool.name in models] or models
    updates: list[Any] = [gr.update(choices=models, value=names[0]) for _ in range(single)]
    updates.append(gr.update(choices=models, value=names[:2]))
    updates += [gr.update(choices=models, value=names[nth % len(names)]) for nth in range(in_turn)]
    return updates
