"""Errors as text for the user: what failed and what to do next."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webui.i18n import N_, _

if TYPE_CHECKING:
    import openai

RETRY = N_("Press retry.")


@dataclass(unsafe_hash=True)  # not frozen: Python sets the traceback of an exception that leaves a context manager
class UserError(Exception):
    """`summary` states what failed and `advice` what to do next, in one sentence each."""

    summary: str
    advice: str = RETRY
    interrupted: bool = False
    """The answer was cut off after it began, so another engine may continue it."""

    def __str__(self) -> str:
        return f"{self.summary} {self.advice}"


def answer_cut_error() -> UserError:
    return UserError(_("The answer was cut off: the connection to the engine was lost."), _(RETRY), interrupted=True)


def explain_error(error: Exception, gateway_url: str, begun: bool = False) -> UserError:
    """Converts the error of a gateway request to a UserError. `begun`: part of the answer has arrived."""
    import openai  # decoder processes import this module, and openai needs 60 MB

    match error:
        case openai.APIConnectionError() if begun:  # the OpenAI client also raises this for a broken stream
            return answer_cut_error()
        case UserError():
            return error
        case openai.APIStatusError():
            return _refusal_error(error)
        case openai.APITimeoutError():
            return UserError(_("The gateway did not respond in time."), _(RETRY))
        case openai.APIConnectionError():
            return gateway_unreachable_error(gateway_url)
        case openai.APIError():  # an error object inside a stream
            return UserError(
                _("The engine stopped with an error: {message}", message=_sentence(error.message)),
                _(RETRY),
                interrupted=True,
            )
    return answer_cut_error()  # transport errors: the connection broke during the answer


def gateway_unreachable_error(gateway_url: str) -> UserError:
    return UserError(
        _("The gateway at {url} cannot be reached.", url=gateway_url),
        _("Check that it is running (docker compose ps gateway), then press retry."),
    )


def _refusal_error(error: "openai.APIStatusError") -> UserError:
    message = _sentence(_message(error))
    match error.status_code:
        case 400 | 422:
            return UserError(message, _("Change the message or the settings, then send it again."))
        case 401 | 403:
            return UserError(message, _("The operator must set the key of this page in MANYEYES_API_KEY."))
        case 404:
            return UserError(message, _("Choose another model in the settings, then press retry."))
        case 413:
            return UserError(
                message, _("Remove an image or a video, or start a new chat, then send the message again.")
            )
        case 429:
            return UserError(message, _("Press retry {when}.", when=_retry_time(error)))
        case 502 | 503 | 504:
            return UserError(message, _("The engines may be starting. Press retry {when}.", when=_retry_time(error)))
    return UserError(
        _("The gateway responded with status {status}: {message}", status=error.status_code, message=message), _(RETRY)
    )


def _message(error: "openai.APIStatusError") -> str:
    """Returns the message of OpenAI's error object. The client has already removed the outer "error" key."""
    message = error.body.get("message") if isinstance(error.body, dict) else None
    if isinstance(message, str):
        return message
    return _("The gateway refused the request with status {status}", status=error.status_code)


def _sentence(text: str) -> str:
    text = " ".join(text.split())[:500] or _("no reason was given")
    return text if text.endswith((".", "!", "?", "。")) else f"{text}."


def _retry_time(error: "openai.APIStatusError") -> str:
    seconds = error.response.headers.get("retry-after", "")
    return _("in {seconds} s", seconds=seconds) if seconds.isdecimal() and seconds != "0" else _("in a moment")


_logger = logging.getLogger("webui")


def as_user_error(error: Exception) -> UserError:
    """Returns `error` if it is a UserError. Any other error is a bug, and its traceback is logged."""
    if isinstance(error, UserError):
        return error
    _logger.error("page_failed", exc_info=error)
    return UserError(
        _("The page failed with an internal error ({kind}).", kind=type(error).__name__),
        _("Press retry. If it fails again, contact the operator."),
    )
