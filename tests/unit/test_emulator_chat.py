import io
from base64 import b64encode
from typing import Any

import pytest
from PIL import Image

from manyeyes.emulator import cli, requests
from manyeyes.emulator.responses import RequestError
from manyeyes.simulator import request

GIF = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"  # 1 x 1 pixel
OPTIONS = cli.parse(
    ["--served-model-name", "m", "alias", "--max-model-len", "500", "--limit-mm-per-prompt", '{"image":2,"video":1}']
)


def body(content: object = "hello there", **more: object) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


def image(url: str = GIF) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def refusal(request: dict[str, Any]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        requests.read_chat(request, OPTIONS)
    return caught.value


def test_prompt_tokens_count_texts_images_and_the_marks_of_every_turn() -> None:
    job = requests.read_chat(
        {
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": [image(), {"type": "text", "text": "What is this?"}]},
                {"role": "assistant", "content": "A dog."},
                {"role": "user", "content": "Sure?"},
            ]
        },
        OPTIONS,
    )
    words = 2 + 3 + 2 + 1
    assert job.media[0].offset == request.PER_MESSAGE + 2 + 3 + 1  # after a whole message, a role and a mark
    assert job.prompt_tokens == words + 64 + request.AROUND_VISION + 4 * request.PER_MESSAGE + request.OPENING
    assert len(job.media) == 1
    assert job.model == "m"


def test_every_served_name_is_answered_under_that_name() -> None:
    assert requests.read_chat(body(model="alias"), OPTIONS).model == "alias"


def test_an_unknown_model_gets_404() -> None:
    error = refusal(body(model="other"))
    assert (error.status, error.kind, error.param) == (404, "NotFoundError", "model")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"model": "m"}, "messages: Field required"),
        ({"model": "m", "messages": []}, "empty conversation"),
        ({"model": "m", "messages": "hi"}, "valid list"),
        ({"model": "m", "messages": ["hi"]}, "message with a role"),
        (body(5), "a string or a list of parts"),
        (body([{"type": "text"}]), "part of a message"),
        (body([image("data:image/png;base64,aGVsbG8=")]), "cannot identify image file"),
        (body([image()] * 3), r"At most 2 image\(s\) may be provided in one prompt"),
        (body([{"type": "input_audio", "input_audio": {}}]), r"At most 0 audio\(s\)"),
        (body("word " * 500), "maximum context length is 500 tokens"),
        (body(max_tokens=0), "max_tokens must be at least 1"),
        (body(max_tokens="7"), "valid integer"),
        (body(max_tokens=501), "cannot be greater than max_model_len=500"),
        (body(n=2), "one answer per request"),
        (body(stream="yes"), "valid boolean"),
        (body(stream_options=3), "should be an object"),
    ],
)
def test_a_bad_request_gets_400_and_the_reason(request_: dict[str, Any], message: str) -> None:
    error = refusal(request_)
    assert error.status == 400
    assert error.body()["error"]["code"] == 400
    with pytest.raises(RequestError, match=message):
        raise error


def test_max_tokens_cuts_the_answer_and_ignore_eos_fills_it() -> None:
    assert len(requests.read_chat(body(max_tokens=5), OPTIONS).answer) == 5
    assert requests.read_chat(body(max_tokens=5), OPTIONS).finish_reason == "length"
    assert len(requests.read_chat(body(max_tokens=300, ignore_eos=True), OPTIONS).answer) == 300
    assert requests.read_chat(body(max_tokens=300), OPTIONS).finish_reason == "stop"
    assert len(requests.read_chat(body(max_tokens=300, min_tokens=100), OPTIONS).answer) == 100


def test_an_answer_never_grows_beyond_the_context() -> None:
    job = requests.read_chat(body(max_tokens=499, ignore_eos=True), OPTIONS)
    assert job.prompt_tokens + len(job.answer) == OPTIONS.max_model_len


def test_a_plain_completion_takes_text_or_token_ids_and_has_a_short_default() -> None:
    assert requests.read_completion({"model": "m", "prompt": "The cat"}, OPTIONS).prompt_tokens == 2
    assert requests.read_completion({"model": "m", "prompt": [5, 6, 7]}, OPTIONS).prompt_tokens == 3
    assert len(requests.read_completion({"model": "m", "prompt": ["The cat"]}, OPTIONS).answer) == 16
    for wrong in (None, "", [], ["two", "prompts"]):
        with pytest.raises(RequestError):
            requests.read_completion({"model": "m", "prompt": wrong}, OPTIONS)


def test_a_second_turn_begins_with_the_tokens_of_the_first_and_of_its_answer() -> None:
    question = {"role": "user", "content": [image(), {"type": "text", "text": "What is this?"}]}
    first = requests.read_chat({"messages": [question]}, OPTIONS)
    answer = {"role": "assistant", "content": "".join(first.answer)}
    again = {"role": "user", "content": "Are you sure?"}
    second = requests.read_chat({"messages": [question, answer, again]}, OPTIONS)
    so_far = [*first.prompt, *request.text_tokens(" ".join(first.answer))]
    assert second.prompt[: len(so_far)] == so_far


def test_another_picture_has_other_tokens_in_the_same_places() -> None:
    one, other = (requests.read_chat(body([image(url)]), OPTIONS).prompt for url in (GIF, GIF[:-4] + "AA7A"))
    assert [a == b for a, b in zip(one, other, strict=True)].count(False) == 64


def with_limits(monkeypatch: pytest.MonkeyPatch) -> cli.EmulatorOptions:
    for name, most in (("IMAGE_PIXELS", "1000000"), ("N_SEQUENCES", "8"), ("COMPLETION_PROMPTS", "16")):
        monkeypatch.setenv(f"VLLM_MAX_{name}", most)
    return cli.parse(["--served-model-name", "m"])


def png(width: int, height: int) -> dict[str, Any]:
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return image("data:image/png;base64," + b64encode(file.getvalue()).decode())


def test_a_picture_of_too_many_pixels_is_refused_in_vllms_words(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = with_limits(monkeypatch)
    requests.read_chat(body([png(1000, 1000)]), limited)
    with pytest.raises(
        RequestError, match=r"^Image dimensions 1000x1001 \(1001000 pixels\) exceed the maximum"
    ) as caught:
        requests.read_chat(body([png(1000, 1001)]), limited)
    assert (caught.value.status, caught.value.kind) == (400, "BadRequestError")


def test_more_answers_or_prompts_than_allowed_are_refused_in_vllms_words(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = with_limits(monkeypatch)
    with pytest.raises(RequestError, match=r"^n must be at most 8, got 9") as caught:
        requests.read_chat(body(n=9), limited)
    assert caught.value.status == 400
    for prompts in (["x"] * 17, [[1]] * 17):
        with pytest.raises(
            RequestError, match=r"^prompt list length 17 exceeds the maximum allowed count of 16"
        ) as caught:
            requests.read_completion({"model": "m", "prompt": prompts}, limited)
        assert caught.value.param == "prompt"
