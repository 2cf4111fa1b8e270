"""The theme: colours, and system fonts, so that the page loads nothing from other hosts."""

import html
import json
from pathlib import Path

import gradio as gr
from gradio.themes.utils import colors, sizes

from webui.i18n import N_, ZH, _, current_language

CSS = Path(__file__).parent / "page.css"
SCRIPTS = (Path(__file__).parent / "page.js", Path(__file__).parent / "chats.js")

SCRIPT_TEXTS = (
    N_("Your question"),
    N_("Your question to all models"),
    N_("More tabs"),
    N_("Enlarge the image"),
    N_("Delete the chat {title}"),
    N_("Log out"),
)
"""Texts that the scripts show."""


def head_html() -> str:
    """Returns the scripts with their texts, and sets the language of Gradio's own texts to that of the page."""
    texts = json.dumps({word: _(word) for word in SCRIPT_TEXTS}, ensure_ascii=False).replace("<", "\\u003c")
    browser = "zh-CN" if current_language() == ZH else "en"
    # Gradio uses the browser's language, so its "Drop file here" could differ from the language of the page.
    begin = (
        f'for (const [name, value] of [["language", "{browser}"], ["languages", ["{browser}"]]])'
        "  Object.defineProperty(navigator, name, { get: () => value, configurable: true });"
        f'document.documentElement.lang = "{browser}"; window.manyeyesTexts = {texts};'
    )
    scripts = (begin, *(script.read_text(encoding="utf-8") for script in SCRIPTS))
    return "".join(f"<script>{script}</script>" for script in scripts)


def hint_html(text: str) -> str:
    """Returns a hint for an area that is still empty."""
    return f'<p class="empty">{html.escape(text)}</p>'


def status_html(text: str) -> str:
    """Returns a status message; empty for an empty text."""
    return f'<p role="status">{html.escape(text)}</p>' if text else ""


def alert_html(text: str) -> str:
    return f'<p role="alert"><b class="bad">{html.escape(text)}</b></p>'


class SystemFont(gr.themes.Font):
    """A CSS keyword such as system-ui, which must not be quoted."""

    def __str__(self) -> str:
        return self.name


def build_theme() -> gr.themes.Base:
    return gr.themes.Base(
        primary_hue=colors.teal,
        secondary_hue=colors.teal,
        neutral_hue=colors.slate,
        spacing_size=sizes.spacing_md,
        radius_size=sizes.radius_md,
        text_size=sizes.text_md,
        font=[SystemFont("system-ui"), SystemFont("sans-serif")],
        font_mono=[SystemFont("ui-monospace"), SystemFont("monospace")],
    ).set(
        body_background_fill="#f7f8fa",
        body_background_fill_dark="#0e1318",
        background_fill_primary_dark="#151b22",
        background_fill_secondary_dark="#1a222b",
        block_background_fill_dark="#151b22",
        border_color_primary="#e2e6eb",
        border_color_primary_dark="#27313b",
        input_background_fill="#f7f8fa",
        input_background_fill_dark="#0e1318",
        input_border_color="#e2e6eb",
        input_border_color_dark="#27313b",
        input_border_width="1px",
        body_text_color="#1c2733",
        body_text_color_subdued="#5f6c7b",
        body_text_color_dark="#e6eaef",
        body_text_color_subdued_dark="#93a1b0",
        block_label_text_color="#3b4855",
        block_title_text_color="#3b4855",
        block_title_text_color_dark="#c3cdd7",
        color_accent="*primary_600",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_600",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        slider_color="*primary_600",
    )
