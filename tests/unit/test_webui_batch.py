"""Many pages read at once: bounded, each by itself, and saved in three forms."""

import asyncio
import csv
import io
import json
from pathlib import Path

import pytest

from webui.chat.streamed_answer import ServedBy, StreamedAnswer
from webui.files import batch, batch_report
from webui.files.batch import BatchPage, PageBatch, PageState
from webui.user_error import UserError, answer_cut_error


def pages(count: int) -> PageBatch:
    return PageBatch([BatchPage(number, Path(f"page-{number}.png")) for number in range(1, count + 1)])


def answered(text: str = "text", **more: object) -> StreamedAnswer:
    answer = StreamedAnswer(0.0, text=text, served=ServedBy(engine="gpu-0"), finish_reason="stop")
    for name, value in more.items():
        setattr(answer, name, value)
    return answer


async def read_all(found: PageBatch, reads: batch.PageReader, at_once: int = 4, wants_json: bool = False) -> None:
    async for _ in batch.run_batch(found, reads, at_once, wants_json):
        pass


async def test_no_more_pages_than_wanted_are_read_at_a_time() -> None:
    now, most = 0, 0

    async def read(page: BatchPage) -> StreamedAnswer:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        return answered()

    found = pages(12)
    await read_all(found, read, at_once=3)
    assert (found.count(PageState.DONE), most) == (12, 3)


async def test_a_page_that_fails_in_any_way_loses_no_other() -> None:
    async def read(page: BatchPage) -> StreamedAnswer:
        match page.number:
            case 1:
                raise UserError("page-1.png is empty.", "Attach another file.")
            case 2:
                raise ZeroDivisionError
            case 3:
                return answered("half", failure=answer_cut_error())
        return answered()

    found = pages(5)
    await read_all(found, read)
    assert [page.state.value for page in found.pages] == ["failed", "failed", "failed", "done", "done"]
    assert found.pages[0].failure.startswith("page-1.png is empty")
    assert "ZeroDivisionError" in found.pages[1].failure


async def test_only_failed_pages_are_read_again() -> None:
    asked: list[int] = []

    async def read(page: BatchPage) -> StreamedAnswer:
        asked.append(page.number)
        if page.number == 2 and page.tries == 1:
            raise UserError("Busy.")
        return answered()

    found = pages(3)
    await read_all(found, read)
    assert batch.requeue_unread(found) == 1
    await read_all(found, read)
    assert (asked.count(1), asked.count(2), found.count(PageState.DONE)) == (1, 2, 3)


async def test_stop_leaves_what_was_read_and_names_the_rest() -> None:
    found = pages(20)

    async def read(page: BatchPage) -> StreamedAnswer:
        if page.number == 3:
            found.stop = True
        await asyncio.sleep(0.005)
        return answered()

    await read_all(found, read, at_once=1)
    assert 1 <= found.count(PageState.DONE) < 20
    assert found.count(PageState.STOPPED) == 20 - found.count(PageState.DONE)
    assert batch.requeue_unread(found) == found.count(PageState.WAITING) > 0


async def test_an_answer_that_is_no_json_is_a_failed_page_that_says_why() -> None:
    async def read(page: BatchPage) -> StreamedAnswer:
        return answered('{"total": 1', finish_reason="length") if page.number == 1 else answered('{"total": 1}')

    found = pages(2)
    await read_all(found, read, wants_json=True)
    assert "truncated at max tokens" in found.pages[0].failure
    assert found.pages[1].fields == {"total": 1}


@pytest.mark.parametrize(("schema", "said"), [("{", "not valid JSON: line 1"), ("[]", "an object")])
def test_a_wrong_schema_is_explained(schema: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        batch.parse_schema(schema)


def test_the_three_files_hold_every_page() -> None:
    found = pages(3)
    found.pages[0].state, found.pages[0].fields = PageState.DONE, {"total": 3.5, "items": ["a", "b"]}
    found.pages[1].state, found.pages[1].fields = PageState.DONE, {"total": 4, "note": "=HYPERLINK(1)"}
    found.pages[2].state, found.pages[2].failure = PageState.FAILED, "Busy."
    rows = list(csv.DictReader(io.StringIO(batch_report.batch_csv(found))))
    assert [row["state"] for row in rows] == ["done", "done", "failed"]
    assert (rows[0]["total"], rows[0]["items"], rows[2]["error"]) == ("3.5", '["a", "b"]', "Busy.")
    assert rows[1]["note"] == "'=HYPERLINK(1)"  # no formula in anybody's sheet
    assert [page["error"] for page in json.loads(batch_report.batch_json(found))["pages"]] == [None, None, "Busy."]
    assert "*failed: Busy.*" in batch_report.batch_markdown(found)


def test_progress_says_how_many_how_fast_and_what_to_do() -> None:
    found = pages(4)
    found.started_s, found.ended_s = 10.0, 12.0
    for page in found.pages[:2]:
        page.state, page.engine = PageState.DONE, "gpu-1"
    found.pages[2].state = PageState.FAILED
    found.pages[3].state = PageState.STOPPED
    assert (
        batch_report.progress_text(found, False)
        == "2 of 4 pages read · 1.0 pages/s · 1 failed: press Retry failed · 1 not read · by gpu-1"
    )
