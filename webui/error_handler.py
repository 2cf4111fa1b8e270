"""What is said of an error that nobody foresaw: a visitor must not wait for an answer that never comes."""

from __future__ import annotations

import logging

from webui.i18n.language import say
from webui.user_error import Failure

_logger = logging.getLogger("webui")


def trouble(error: Exception) -> Failure:
    """`error` itself if it is a Failure; anything else is a bug, and its traceback goes to the log."""
    if isinstance(error, Failure):
        return error
    _logger.error("page_failed", exc_info=error)
    return Failure(
        say("The page made a mistake ({kind}).", kind=type(error).__name__),
        say("Press retry; if it stays, tell whoever runs this page."),
    )
