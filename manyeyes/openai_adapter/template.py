"""A request template, filled. Pure.

Values are put into the parsed document, never into JSON text, so no prompt can break out of its string; and in one pass, so a
prompt that holds {MODEL_NAME} stays as it is.

What stands alone for something the request does not say (no temperature, no picture) is left out with its key, and a key or list
item that is empty without it goes too. A list item that holds {IMAGE_URL} and not the prompt is repeated for every picture.
"""

from typing import Any

from manyeyes.config.custom_endpoint import ALONE, PLACEHOLDER, Endpoint
from manyeyes.openai_adapter.errors import Refusal
from manyeyes.openai_adapter.request_mapping import Question

_LEFT_OUT: Any = object()


def fill(endpoint: Endpoint, question: Question, model: str, stream: bool) -> Any:
    """The body that the endpoint wants. Raises Refusal 400 for pictures that it has no place for."""
    if question.pictures and not endpoint.takes_pictures:
        raise Refusal(400, "no_pictures", "This model takes no pictures.")
    values = {
        "USER_PROMPT": question.prompt,
        "MODEL_NAME": endpoint.model or model,
        "MODEL_TEMPERATURE": question.temperature,
        "MAX_TOKENS": question.max_tokens,
        "STREAM": stream,
    }
    return _fill(endpoint.template, values, list(question.pictures))


def _fill(node: Any, values: dict[str, Any], pictures: list[str]) -> Any:
    if isinstance(node, str):
        return _fill_text(node, values, pictures)
    if isinstance(node, dict):
        filled = {key: _fill(value, values, pictures) for key, value in node.items()}
        kept = {key: value for key, value in filled.items() if value is not _LEFT_OUT}
        return kept if kept or not node else _LEFT_OUT
    if isinstance(node, list):
        kept_items = []
        for item in node:
            for shown in [[one] for one in pictures] if _is_for_each_picture(item) else [pictures]:
                kept_items.append(_fill(item, values, shown))
        kept_items = [item for item in kept_items if item is not _LEFT_OUT]
        return kept_items if kept_items or not node else _LEFT_OUT
    return node


def _fill_text(text: str, values: dict[str, Any], pictures: list[str]) -> Any:
    names = set(PLACEHOLDER.findall(text))
    if names & ALONE:
        value = values[names.pop()]
        return _LEFT_OUT if value is None else value
    if "IMAGE_URL" in names:
        if len(pictures) > 1:
            raise Refusal(400, "too_many_pictures", "This model takes one picture in a request.")
        if not pictures and "USER_PROMPT" not in names:
            return _LEFT_OUT
    texts = values | {"IMAGE_URL": pictures[0] if pictures else ""}
    return PLACEHOLDER.sub(lambda found: str(texts[found[1]]), text)


def _is_for_each_picture(item: Any) -> bool:
    return _holds(item, "{IMAGE_URL}", into_lists=False) and not _holds(item, "{USER_PROMPT}", into_lists=True)


def _holds(node: Any, placeholder: str, into_lists: bool) -> bool:
    if isinstance(node, str):
        return placeholder in node
    if isinstance(node, dict):
        return any(_holds(value, placeholder, into_lists) for value in node.values())
    if isinstance(node, list) and into_lists:
        return any(_holds(value, placeholder, into_lists) for value in node)
    return False
