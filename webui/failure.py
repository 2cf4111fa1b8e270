"""What went wrong, and what to do next, in words for the person at the page."""

from __future__ import annotations

from dataclasses import dataclass

import openai

RETRY = "Press retry."


@dataclass(unsafe_hash=True)  # not frozen: Python writes the traceback into an exception that passes a context manager
class Failure(Exception):
    """`what` failed (one sentence) and what to do `next` (one sentence)."""

    what: str
    next: str = RETRY
    cut: bool = False
    """An answer that had begun broke off, so that another engine may go on with it."""

    def __str__(self) -> str:
        return f"{self.what} {self.next}"


CUT = Failure("The answer was cut: the engine went away.", cut=True)


def explain(error: Exception, gateway_url: str, begun: bool = False) -> Failure:
    """`error`, raised while the gateway was asked, as a Failure. `begun`: a part of the answer had come."""
    match error:
        case openai.APIConnectionError() if begun:  # the client's name for a stream that breaks off, too
            return CUT
        case Failure():
            return error
        case openai.APIStatusError():
            return _refused(error)
        case openai.APITimeoutError():
            return Failure("The gateway did not answer in time.")
        case openai.APIConnectionError():
            return unreachable(gateway_url)
        case openai.APIError():  # an error object inside a stream that began well
            return Failure(f"The engine stopped with an error: {_sentence(error.message)}", cut=True)
    return CUT  # the transport's own errors: the connection broke while the answer came


def unreachable(gateway_url: str) -> Failure:
    return Failure(
        f"The gateway at {gateway_url} cannot be reached.",
        "See whether it runs (docker compose ps gateway), then press retry.",
    )


def _refused(error: openai.APIStatusError) -> Failure:
    said = _sentence(_message(error))
    match error.status_code:
        case 400 | 422:
            return Failure(said, "Change the message or the settings, then send it again.")
        case 401 | 403:
            return Failure(said, "Whoever runs this page sets its key in MANYEYES_API_KEY.")
        case 404:
            return Failure(said, "Choose another model in the settings, then press retry.")
        case 413:
            return Failure(said, "Remove a picture or a video, or begin a new chat, then send it again.")
        case 429:
            return Failure(said, f"Press retry {_when(error)}.")
        case 502 | 503 | 504:
            return Failure(said, f"The engines may be starting. Press retry {_when(error)}.")
    return Failure(f"The gateway answered with status {error.status_code}: {said}")


def _message(error: openai.APIStatusError) -> str:
    """The message of OpenAI's error object; the client has already taken "error" off when it was there."""
    message = error.body.get("message") if isinstance(error.body, dict) else None
    return message if isinstance(message, str) else f"The gateway refused the request with status {error.status_code}"


def _sentence(text: str) -> str:
    text = " ".join(text.split())[:500] or "no reason was given"
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _when(error: openai.APIStatusError) -> str:
    seconds = error.response.headers.get("retry-after", "")
    return f"in {seconds} s" if seconds.isdecimal() and seconds != "0" else "in a moment"
