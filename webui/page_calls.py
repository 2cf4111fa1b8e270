"""The calls of the page's events and API: the visitor's language and files, and what a failed call logs.

Gradio prints the arguments of some failed calls, which may be keys or prompts. Here no failure of a call is printed: the
log gets the name of the function, the kind of the error and where it occurred.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.exceptions import InvalidPathError

from webui.auth import uploads
from webui.auth.upload_quota import SHARED_QUOTA
from webui.i18n import N_, _, current_language, use_language
from webui.user_error import UserError

_logger = logging.getLogger("webui")

NOT_UPLOADED = N_("This file was not uploaded to this page.")


class LocalizedPage(gr.Blocks):
    """The page in one language. Its events use the same language."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.language = current_language()

    async def process_api(self, block_fn: Any, inputs: list[Any], *positional: Any, **named: Any) -> dict[str, Any]:
        request = named.get("request")
        who = uploads.owner_of(request.cookies if request else {})
        pays = SHARED_QUOTA.paying(uploads.payers(request) if request else ())
        with use_language(self.language), uploads.acting_as(who), pays:
            try:
                _check_inputs(len(block_fn.inputs), inputs)
                return await super().process_api(block_fn, inputs, *positional, **named)
            except UserError as failure:
                raise gr.Error(str(failure), print_exception=False) from None
            except gr.Error as refusal:
                refusal.print_exception = False
                raise
            except InvalidPathError:  # a path that is not of an upload
                raise gr.Error(_(NOT_UPLOADED), print_exception=False) from None
            except Exception as error:
                fields = {"function": block_fn.api_name or block_fn.name}
                _logger.error("page_call_failed", exc_info=error, extra={"fields": fields})
                raise gr.Error(
                    _("The page failed with an internal error ({kind}).", kind=type(error).__name__),
                    print_exception=False,
                ) from None


def _check_inputs(expected: int, inputs: list[Any]) -> None:
    if len(inputs) < expected:
        raise gr.Error(_("This call needs {expected} values; it has {count}.", expected=expected, count=len(inputs)))
    _refuse_components(inputs)
    for value in inputs:
        if isinstance(value, dict) and str(value.get("url", "")).startswith("data:"):
            raise gr.Error(_(NOT_UPLOADED))  # Gradio would write it to disk without an owner
    for path in _named_files(inputs):
        if "://" in path:
            raise gr.Error(_(NOT_UPLOADED))  # Gradio would download it, outside of the visitor's quota
        _refuse_anothers_file(Path(path).resolve())


def _named_files(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(path := value.get("path"), str):
            yield path
        for item in value.values():
            yield from _named_files(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _named_files(item)


def _refuse_components(value: Any) -> None:
    """Refuses Gradio components in chat messages: Gradio would create them, and they could read files."""
    if isinstance(value, dict):
        if isinstance(value.get("component"), str):
            raise gr.Error(_("This is not a chat message."))
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            _refuse_components(item)


def _refuse_anothers_file(path: Path) -> None:
    """Refuses a file of another user. Gradio checks only that a file was uploaded, not by whom."""
    if path.is_relative_to(uploads.upload_folder()) and path.exists() and not uploads.may_read(path):
        raise gr.Error(_(NOT_UPLOADED))
