"""What went wrong, and what to do next, in words for the person at the page."""

import logging
from dataclasses import dataclass

import openai

from webui.i18n import N_, _

RETRY = N_("Press retry.")


@dataclass(unsafe_hash=True)  # not frozen: Python writes the traceback into an exception that passes a context manager
class UserError(Exception):
    """`what` failed (one sentence) and what to do `next` (one sentence)."""

    summary: str
    advice: str = RETRY
    interrupted: bool = False
    """An answer that had begun broke off, so that another engine may go on with it."""

    def __str__(self) -> str:
        return f"{self.summary} {self.advice}"


def answer_cut_error() -> UserError:
    return UserError(_("The answer was cut: the engine went away."), _(RETRY), interrupted=True)


def explain_error(error: Exception, gateway_url: str, begun: bool = False) -> UserError:
    """`error`, raised while the gateway was asked, as a UserError. `begun`: a part of the answer had come."""
    match error:
        case openai.APIConnectionError() if begun:  # the client's name for a stream that breaks off, too
            return answer_cut_error()
        case UserError():
            return error
        case openai.APIStatusError():
            return _refusal_error(error)
        case openai.APITimeoutError():
            return UserError(_("The gateway did not answer in time."), _(RETRY))
        case openai.APIConnectionError():
            return gateway_unreachable_error(gateway_url)
        case openai.APIError():  # an error object inside a stream that began well
            return UserError(
                _("The engine stopped with an error: {said}", said=_sentence(error.message)),
                _(RETRY),
                interrupted=True,
            )
    return answer_cut_error()  # the transport's own errors: the connection broke while the answer came


def gateway_unreachable_error(gateway_url: str) -> UserError:
    return UserError(
        _("The gateway at {url} cannot be reached.", url=gateway_url),
        _("See whether it runs (docker compose ps gateway), then press retry."),
    )


def _refusal_error(error: openai.APIStatusError) -> UserError:
    message = _sentence(_message(error))
    match error.status_code:
        case 400 | 422:
            return UserError(message, _("Change the message or the settings, then send it again."))
        case 401 | 403:
            return UserError(message, _("Whoever runs this page sets its key in MANYEYES_API_KEY."))
        case 404:
            return UserError(message, _("Choose another model in the settings, then press retry."))
        case 413:
            return UserError(message, _("Remove a picture or a video, or begin a new chat, then send it again."))
        case 429:
            return UserError(message, _("Press retry {when}.", when=_retry_time(error)))
        case 502 | 503 | 504:
            return UserError(message, _("The engines may be starting. Press retry {when}.", when=_retry_time(error)))
    return UserError(
        _("The gateway answered with status {status}: {said}", status=error.status_code, said=message), _(RETRY)
    )


def _message(error: openai.APIStatusError) -> str:
    """The message of OpenAI's error object; the client has already taken "error" off when it was there."""
    message = error.body.get("message") if isinstance(error.body, dict) else None
    if isinstance(message, str):
        return message
    return _("The gateway refused the request with status {status}", status=error.status_code)


def _sentence(text: str) -> str:
    text = " ".join(text.split())[:500] or _("no reason was given")
    return text if text.endswith((".", "!", "?", "。")) else f"{text}."


def _retry_time(error: openai.APIStatusError) -> str:
    seconds = error.response.headers.get("retry-after", "")
    return _("in {seconds} s", seconds=seconds) if seconds.isdecimal() and seconds != "0" else _("in a moment")


_logger = logging.getLogger("webui")


def as_user_error(error: Exception) -> UserError:
    """`error` itself if it is a UserError; anything else is a bug, and its traceback goes to the log."""
    if isinstance(error, UserError):
        return error
    _logger.error("page_failed", exc_info=error)
    return UserError(
        _("The page made a mistake ({kind}).", kind=type(error).__name__),
        _("Press retry; if it stays, tell whoever runs this page."),
    )
