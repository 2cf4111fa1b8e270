"""From the body of a plain completion to a Job."""

from typing import Any

from manyeyes.emulator import canned_text, request_fields
from manyeyes.emulator.cli import Options
from manyeyes.emulator.errors import RequestError
from manyeyes.simulator import token_counts
from manyeyes.simulator.request import Job

DEFAULT_MAX_TOKENS = 16  # OpenAI's, and vLLM's, for this path only


def read_job(body: dict[str, Any], options: Options) -> Job:
    """Read the body of /v1/completions: one prompt, as text or as token ids. Raises RequestError."""
    name = request_fields.model(body, options)
    request_fields.check_n(body, options)
    match body.get("prompt"):
        case str(prompt) | [str(prompt)] if prompt:
            ids = token_counts.text_tokens(prompt, options.profile.tokens_per_word) or [0]
        case [int(), *_] as ids:
            prompt = " ".join(map(str, ids))
        case [str() | [*_], *_] as prompts if len(prompts) > options.max_completion_prompts:
            raise RequestError(
                f"prompt list length {len(prompts)} exceeds the maximum allowed count of {options.max_completion_prompts}. "
                "To increase this limit, set the VLLM_MAX_COMPLETION_PROMPTS environment variable. (parameter=prompt)",
                param="prompt",
            )
        case [str(), *_]:
            raise RequestError("This engine is emulated and takes one prompt a request.", param="prompt")
        case _:
            message = "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"
            raise RequestError(message, param="prompt")
    least, most = request_fields.answer_length(body, len(ids), DEFAULT_MAX_TOKENS, options)
    answer, finish_reason = canned_text.answer(canned_text.canned(prompt, [], 0), least, most)
    return Job(
        model=name,
        prompt=ids,
        media=(),
        text=prompt,
        answer=answer,
        finish_reason=finish_reason,
        stream=request_fields.flag(body, "stream"),
        include_usage=request_fields.include_usage(body),
    )
