"""The settings that every tab but Chat shows folded: how an answer is sampled, and how large pictures are sent."""

from __future__ import annotations

import gradio as gr

from webui.i18n.language import later, say


def sampling(
    temperature: float = 0.7, top_p: float = 0.8, max_tokens: int = 1024, longest: int = 1280
) -> list[gr.components.Component]:
    """Components in the order of Knobs: system, temperature, top-p, max tokens, seed, longest side."""
    with gr.Accordion(say("Settings"), open=False, elem_classes="settings"):
        return [
            gr.Textbox(label=say("System prompt"), lines=1, max_lines=6),
            gr.Slider(0, 2, value=temperature, step=0.05, label=say("Temperature")),
            gr.Slider(0.05, 1, value=top_p, step=0.05, label=say("Top-p")),
            gr.Slider(16, 8192, value=max_tokens, step=16, label=say("Max tokens")),
            gr.Textbox(label=say("Seed"), placeholder=say("random"), max_lines=1),
            gr.Slider(256, 4096, value=longest, step=64, label=say("Longest side of a picture (pixels)")),
        ]


def model_choice(label: str = later("Model"), multiselect: bool = False) -> gr.Dropdown:
    """Filled once the gateway has said which models there are."""
    return gr.Dropdown(label=say(label), choices=[], allow_custom_value=True, multiselect=multiselect)
