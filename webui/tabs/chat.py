"""The Chat tab: questions with images, videos and PDFs, streamed answers, and a summary line under each answer."""

from typing import Any

import gradio as gr

from webui import samples
from webui.chat import chat_requester, chat_storage
from webui.chat.chat_handlers import ReplyHandlers
from webui.chat.chat_requester import ChatRequester, ModelLimits
from webui.files import attachments
from webui.i18n import N_, _
from webui.settings import WebuiSettings
from webui.tabs import chat_actions, controls
from webui.tabs.chat_actions import ChatActions

DEFAULT_GREETING = N_("Ask questions about images and videos. Drop them here, paste them, or try one of these.")
"""The default of `webui.greeting` in cluster.yaml, marked here for translation."""

# page.js toggles the panel; by default, page.css shows it on wide screens and hides it on narrow screens.
SIDE_TOGGLE = '<button type="button" class="side-toggle" data-side="{}">{}</button>'
LIST = '<ul id="chat-list-items" aria-label="{}"></ul><p id="chat-list-empty">{}</p>'
OPEN_SHEET = "() => { document.getElementById('%s').classList.add('turned'); }"
CLOSE_SHEET = "() => { document.getElementById('%s').classList.remove('turned'); }"


def build_chat_tab(
    settings: WebuiSettings, requester: ChatRequester, model_limits: ModelLimits
) -> tuple[gr.Dropdown, gr.Chatbot]:
    """Builds the tab. Returns the components that the page refreshes."""
    with gr.Row(elem_classes="tab-body", equal_height=False):
        with gr.Column(elem_id="chat-list", elem_classes="side left", scale=0, min_width=220):
            gr.HTML(SIDE_TOGGLE.format("chat-list", _("Close")), elem_classes="close")
            new = gr.Button(_("New chat"), size="sm", elem_id="new-chat")
            gr.HTML(
                LIST.format(_("Earlier chats"), _("Your chats are stored in this browser only.")),
                elem_id="chat-list-box",
            )
            with gr.Row(elem_classes="exports"):
                as_markdown = gr.Button(_("Save as Markdown"), size="sm")
                as_json = gr.Button(_("Save as JSON"), size="sm")
                bring = gr.UploadButton(_("Import JSON"), size="sm", file_types=[".json"], file_count="single")
            opener = gr.Button(_("Open"), elem_id="chat-open", visible="hidden")
        with gr.Column(elem_classes="main", min_width=300):
            chat = gr.Chatbot(
                elem_id="chat",
                label=_("Chat"),
                show_label=False,
                container=False,
                height="100%",
                layout="bubble",
                buttons=["copy"],
                editable="user",
                latex_delimiters=[  # no single $, which more often marks a price than a formula
                    {"left": "$$", "right": "$$", "display": True},
                    {"left": "\\[", "right": "\\]", "display": True},
                    {"left": "\\(", "right": "\\)", "display": False},
                ],
                feedback_options=None,
                placeholder=_(settings.greeting),
                examples=samples.for_chat(),
            )
            cost = gr.HTML(elem_id="estimate")
            box = gr.MultimodalTextbox(
                elem_id="question",
                label=_("Your question"),
                show_label=False,
                container=False,
                placeholder=_("Ask a question. Drop or paste images, videos and PDFs here."),
                sources=["upload"],
                file_count="multiple",
                file_types=[*attachments.MEDIA_SUFFIXES, attachments.PDF_SUFFIX],
                max_plain_text_length=1_000_000,  # a long pasted text stays text
                lines=1,
                max_lines=8,
                autofocus=True,
            )
            with gr.Row(elem_classes="tools"):
                gr.HTML(SIDE_TOGGLE.format("chat-list", _("Chats")), elem_classes="narrow")
                gr.HTML(SIDE_TOGGLE.format("chat-side", _("Settings")))
                camera = gr.Button(_("Camera"), size="sm", elem_classes="tool")
                view = gr.Button(_("View code"), size="sm", elem_classes="tool")
        with gr.Column(elem_id="chat-side", elem_classes="side", scale=0, min_width=300):
            gr.HTML(SIDE_TOGGLE.format("chat-side", _("Close")), elem_classes="close")
            model = gr.Dropdown(
                label=_("Model"),
                choices=[],
                allow_custom_value=True,  # each visit has its own list, which other replicas of the page do not know
                elem_id="model",
            )
            preset = gr.Dropdown(
                label=_("Task"),
                choices=[(_(preset.name), preset.name) for preset in chat_requester.PRESETS],
                value=chat_requester.DEFAULT_PRESET.name,
                elem_id="preset",
            )
            system = gr.Textbox(
                label=_("System prompt"),
                placeholder=_("You are a careful reader of documents."),
                lines=2,
                max_lines=10,
            )
            temperature = gr.Slider(0, 2, value=0.7, step=0.05, label=_("Temperature"))
            top_p = gr.Slider(0.05, 1, value=0.8, step=0.05, label=_("Top-p"))
            max_tokens = gr.Slider(16, 8192, value=1024, step=16, label=_("Max tokens"))
            seed = gr.Textbox(
                label=_("Seed"), placeholder=_("random; enter a whole number to repeat an answer"), max_lines=1
            )
            longest = gr.Slider(256, 4096, value=1280, step=64, label=_("Longest side of an image (pixels)"))
            per_s = gr.Slider(0.25, 8, value=2, step=0.25, label=_("Video: frames per second"))
            frames = gr.Slider(4, 128, value=16, step=2, label=_("Video: maximum frames"))
    with gr.Column(elem_id="chat-code", elem_classes="sheet"):
        gr.HTML(SIDE_TOGGLE.format("chat-code", _("Close")), elem_classes="close")
        language = gr.Radio(
            list(chat_storage.CODE_LANGUAGES), value="curl", label=_("The last request, as code"), elem_id="language"
        )
        code = gr.Code(language=None, label=_("Code"), interactive=False, elem_id="code", lines=12, max_lines=24)
        as_request = gr.Button(_("Save the whole request as JSON"), size="sm", elem_classes="tool")
    with gr.Column(elem_id="chat-camera", elem_classes="sheet"):
        gr.HTML(SIDE_TOGGLE.format("chat-camera", _("Close")), elem_classes="close")
        snap = gr.Image(
            sources=["webcam"],
            type="filepath",
            image_mode=None,  # otherwise Gradio would decode images of any size
            label=_("Camera"),
            elem_id="snap",
            webcam_options=gr.WebcamOptions(mirror=False),
        )
    packed = gr.JSON(visible="hidden")
    saved = gr.JSON(visible="hidden")

    replies = ReplyHandlers(requester)
    events = ChatActions(replies, model_limits)
    sampling: list[gr.components.Component] = [
        model, system, temperature, top_p, max_tokens, seed, longest, per_s, frames,
    ]  # fmt: skip
    answering: dict[str, Any] = {
        "outputs": [chat, box],
        **controls.queued_event(settings.webui.concurrency.chat, "answers"),
    }
    for event in (
        box.submit(replies.submit, [box, chat, *sampling], **answering),
        chat.retry(replies.retry, [box, chat, *sampling], **answering),
        chat.edit(replies.edit, [chat, *sampling], **answering),
        chat.example_select(replies.send_sample, [chat, *sampling], **answering),
        chat.undo(replies.undo, [chat], [chat, box], **controls.IMMEDIATE_EVENT),
    ):
        event.then(events.pack, [chat], [packed], **controls.IMMEDIATE_EVENT).then(
            None, [packed], None, js="(chat) => { window.manyeyesChats.save(chat); }"
        )
    box.stop(replies.stop, None, None, **controls.IMMEDIATE_EVENT)
    new.click(
        replies.new_chat,
        None,
        [chat, box],
        js="() => { window.manyeyesChats.begin(); return []; }",
        **controls.IMMEDIATE_EVENT,
    )
    opener.click(
        events.open_chat, [packed], [chat, box], js="() => window.manyeyesChats.opened()", **controls.IMMEDIATE_EVENT
    )
    bring.upload(
        events.import_chat,
        [bring],
        [chat, box],
        js="(f) => { window.manyeyesChats.begin(); return f; }",
        **controls.IMMEDIATE_EVENT,
    )
    sizes = [box, model, longest, per_s, frames]
    for changed in (box.change, longest.release, per_s.release, frames.release, model.change):
        changed(events.estimate, sizes, [cost], trigger_mode="always_last", **controls.IMMEDIATE_EVENT)
    preset.input(
        events.apply_preset, [preset, box], [system, temperature, top_p, max_tokens, box], **controls.IMMEDIATE_EVENT
    )
    for button, make in ((as_markdown, events.save_markdown), (as_json, events.save_json)):
        controls.save_on_click(button, make, [chat], saved)
    view.click(events.show_code, [language, box, chat, *sampling], [code], js=None, **controls.IMMEDIATE_EVENT)
    view.click(None, None, None, js=OPEN_SHEET % "chat-code")
    language.input(events.show_code, [language, box, chat, *sampling], [code], **controls.IMMEDIATE_EVENT)
    controls.save_on_click(as_request, events.save_request, [box, chat, *sampling], saved)
    camera.click(None, None, None, js=OPEN_SHEET % "chat-camera")
    snapped = snap.input(events.attach_snapshot, [snap, box], [box, snap], **controls.IMMEDIATE_EVENT)
    snapped.then(None, None, None, js=CLOSE_SHEET % "chat-camera")
    snapped.then(
        events.estimate, sizes, [cost], **controls.IMMEDIATE_EVENT
    )  # a box that the page fills sends no change event
    chat_actions.mount_chat_api(requester, model_limits, events, settings.webui.concurrency.api_clients)
    return model, chat
