"""Every event of the built page: with nothing filled in it changes nothing, because Gradio empties what a generator leaves unsaid."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pydantic.v1  # noqa: F401  # FastAPI imports it deep in a call, where pytest's rewriting of it trips over CPython's parser
import pytest
from gradio.block_function import BlockFunction
from gradio.helpers import special_args

import webui
from webui.app import build_page
from webui.chat.chat_requester import ModelLimits
from webui.cluster.gateway_client import GatewayClient
from webui.files.batch import BatchPage, PageBatch, PageState
from webui.settings import WebuiSettings

EVENT = {
    gr.SelectData: {"index": 0, "value": {"text": "", "files": []}},
    gr.RetryData: {"index": 0, "value": ""},
    gr.EditData: {"index": 0, "value": "", "previous_value": ""},
}
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def blocks() -> gr.Blocks:
    """The page; inside a loop, because Gradio makes one of its own where there is none, and never closes it."""
    settings = WebuiSettings(gateway_url=NOBODY, controller_url=NOBODY, prometheus_url=NOBODY, locust_url=NOBODY)

    async def building() -> gr.Blocks:
        return build_page(settings, GatewayClient(settings), ModelLimits(None))

    return asyncio.run(building())


def function(event: BlockFunction) -> Callable[..., Any]:
    assert event.fn
    return event.fn


def generators(blocks: gr.Blocks) -> Iterator[BlockFunction]:
    for event in blocks.fns.values():
        if inspect.isasyncgenfunction(event.fn) or inspect.isgeneratorfunction(event.fn):
            yield event


def empty(component: Any, words: str) -> Any:
    """What the browser sends of a component that nobody filled in, `words` where words can be typed."""
    match component:
        case gr.MultimodalTextbox():
            return {"text": words, "files": []}
        case gr.Textbox():
            return words
        case gr.Chatbot() | gr.BrowserState():
            return []
        case gr.Slider() | gr.Radio():
            return component.value
    return None


async def answered(event: BlockFunction, inputs: list[Any]) -> list[Any]:
    """All that the event says."""
    needs = [one.annotation for one in inspect.signature(function(event)).parameters.values()]
    data = next((gr.EventData(None, dict(EVENT[need])) for need in needs if need in EVENT), None)
    request = gr.Request(session_hash="visit", headers={}, query_params={})
    filled, *_ = special_args(function(event), list(inputs), request, data)
    found = function(event)(*filled)
    return [update async for update in found] if inspect.isasyncgen(found) else list(found)


def asks_for_nothing(event: BlockFunction) -> bool:
    """A sample, a retry or an edit cannot be empty: it names what was asked."""
    return not any(one.annotation in EVENT for one in inspect.signature(function(event)).parameters.values())


def test_the_page_has_the_generators_that_these_tests_are_about(blocks: gr.Blocks) -> None:
    names = [function(event).__qualname__ for event in generators(blocks) if asks_for_nothing(event)]
    assert set(names) >= {
        "ReplyHandlers.submit", "DocumentsHandlers.read", "DocumentsHandlers.again", "CompareHandlers.run", "IndividualHandlers.run", "FallbackHandlers.run",
        "AgentHandlers.step", "AgentHandlers.every",
    }  # fmt: skip


@pytest.mark.parametrize("words", ["", "   ", "\n\t"])
def test_an_event_with_nothing_filled_in_changes_nothing(blocks: gr.Blocks, words: str) -> None:
    wiped = {}
    for event in generators(blocks):
        if not asks_for_nothing(event):
            continue
        said = asyncio.run(answered(event, [empty(component, words) for component in event.inputs]))
        updates = [update if len(event.outputs) > 1 else (update,) for update in said]
        if not updates or any(tuple(update) != (gr.skip(),) * len(event.outputs) for update in updates):
            wiped[function(event).__qualname__] = updates
    assert wiped == {}


def event_named(blocks: gr.Blocks, name: str) -> BlockFunction:
    return next(event for event in generators(blocks) if function(event).__qualname__ == name)


@pytest.mark.filterwarnings("ignore::UserWarning")  # gr.Warning's way where no browser listens
def test_documents_that_cannot_be_read_leave_the_table_as_it_is(
    blocks: gr.Blocks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(b"no PDF")
    unchanged = [(gr.skip(),) * 3]
    event = event_named(blocks, "DocumentsHandlers.read")
    files = next(nth for nth, component in enumerate(event.inputs) if isinstance(component, gr.File))
    schema = next(nth for nth, component in enumerate(event.inputs) if isinstance(component, gr.Code))
    inputs = [empty(component, "") for component in event.inputs]
    inputs[files] = [str(broken)]
    assert asyncio.run(answered(event, inputs)) == unchanged
    picture = webui.__path__[0] + "/samples/receipt.png"
    inputs[files], inputs[schema] = [picture], "no JSON"
    assert asyncio.run(answered(event, inputs)) == unchanged
    inputs[0] = PageBatch([BatchPage(1, Path(picture), state=PageState.READING)], started_s=1.0)
    assert asyncio.run(answered(event, inputs)) == unchanged
