"""The page's environment, and what it reads from cluster.yaml: its texts at every visit, and what each model takes."""

import os
from pathlib import Path

import pytest

from webui import settings
from webui.chat.chat_requester import ModelLimits
from webui.settings import EndpointAddress, PageTexts, SettingsError, WebuiSettings, current_page_texts


def test_an_empty_environment_gives_the_defaults() -> None:
    assert settings.read_settings({}) == WebuiSettings()
    assert settings.read_settings({"MANYEYES_WEBUI_PORT": "", "MANYEYES_API_KEY": " "}) == WebuiSettings()


def test_every_variable_is_read() -> None:
    found = settings.read_settings(
        {
            "MANYEYES_GATEWAY_URL": "http://localhost:8080/",
            "MANYEYES_WEBUI_PORT": "7000",
            "MANYEYES_WEBUI_TITLE": "Eyes",
            "MANYEYES_WEBUI_GREETING": "Hello",
            "MANYEYES_MAX_BODY_MB": "8",
            "MANYEYES_API_KEY": "secret",
            "MANYEYES_CONTROLLER_URL": "http://localhost:8081/",
            "MANYEYES_PROMETHEUS_URL": "http://localhost:9090",
            "MANYEYES_LOCUST_URL": "http://localhost:8089/locust",
            "PRIMARY_BASE_URL": "https://api.example.com/v1/",
            "PRIMARY_MODEL": "big",
            "PRIMARY_API_KEY": "primary-secret",
        }
    )
    assert found == WebuiSettings(
        "http://localhost:8080",
        7000,
        "Eyes",
        "Hello",
        8,
        "secret",
        controller_url="http://localhost:8081",
        prometheus_url="http://localhost:9090",
        locust_url="http://localhost:8089/locust",
        primary=EndpointAddress("Primary", "https://api.example.com/v1", "big", "primary-secret"),
        fallback=EndpointAddress("Fallback", "http://localhost:8080/v1", "auto"),
    )
    assert found.max_body_bytes == 8 * 1024 * 1024


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        settings.read_settings(
            {"MANYEYES_GATEWAY_URL": "gateway", "MANYEYES_WEBUI_PORT": "x", "MANYEYES_MAX_BODY_MB": "0"}
        )
    assert str(caught.value).splitlines() == [
        "MANYEYES_GATEWAY_URL: expected an address like http://gateway:8079, got 'gateway'",
        "MANYEYES_WEBUI_PORT: expected a whole number from 1 to 65535, got 'x'",
        "MANYEYES_MAX_BODY_MB: expected a whole number from 1 to 4096, got '0'",
    ]


def test_the_key_is_never_printed() -> None:
    assert "secret" not in repr(settings.read_settings({"MANYEYES_API_KEY": "secret"}))


def test_the_clusters_file_gives_texts_and_limits_and_the_environment_wins(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("pools: [{name: a, model: tiny}]\nwebui: {title: Our eyes}\ngateway: {max_body_mb: 12}\n")
    found = settings.read_settings({"MANYEYES_CONFIG": str(file), "MANYEYES_MAX_BODY_MB": "9"})
    assert (found.title, found.max_body_mb) == ("Our eyes", 9)


def test_a_wrong_clusters_file_is_told_with_its_problems(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("pools: 3\n")
    with pytest.raises(SettingsError, match="pools: expected a list of pools, got 3"):
        settings.read_settings({"MANYEYES_CONFIG": str(file)})


POOLS = "pools: [{name: a, model: tiny}]\n"


def test_a_visit_sees_the_texts_that_stand_in_the_file_at_that_moment(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(f"{POOLS}webui: {{title: Our eyes, greeting: Hello}}\n")
    environ = {"MANYEYES_CONFIG": str(file)}
    texts = current_page_texts(settings.read_settings(environ), environ)
    assert texts() == PageTexts("Our eyes", "Hello")
    file.write_text(f"{POOLS}webui: {{title: Other eyes, greeting: Good morning}}\n")
    assert texts() == PageTexts("Other eyes", "Good morning")


def test_while_the_file_is_wrong_the_last_texts_stay(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(f"{POOLS}webui: {{title: Our eyes}}\n")
    environ = {"MANYEYES_CONFIG": str(file), "MANYEYES_WEBUI_GREETING": "From the environment"}
    texts = current_page_texts(settings.read_settings(environ), environ)
    for wrong in ("pools: [", f"{POOLS}webui: {{title: ''}}\n"):
        file.write_text(wrong)
        assert texts() == PageTexts("Our eyes", "From the environment")
    file.unlink()
    assert texts().title == "Our eyes"
    file.write_text(f"{POOLS}webui: {{title: Other eyes}}\n")
    assert texts() == PageTexts("Other eyes", "From the environment")


def test_limits_come_from_the_pool_that_answers_to_the_name_whoever_lays_out_the_engines(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "engines: auto\npools: [{name: big, model: org/Big, aliases: [b], media: {images_per_prompt: 9}}]\n"
    )
    caps = ModelLimits(file)
    assert [caps.media(name).images_per_prompt for name in ("big", "org/Big", "b", "auto", None)] == [9, 9, 9, 16, 16]


def test_a_changed_file_counts_and_a_broken_one_does_not(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    caps = ModelLimits(file)
    for number, (text, wanted) in enumerate(((pools(4096), 4096), (pools(8192), 8192), ("pools: nonsense", 8192))):
        file.write_text(text)
        os.utime(file, ns=(number + 1, number + 1))
        pool = caps.pool("big")
        assert pool is not None
        assert pool.max_model_len == wanted


def pools(length: int) -> str:
    return (
        f"pools: [{{name: big, model: m, max_model_len: {length}}}]\n"
        "engines: [{name: gpu-0, pool: big, flavour: emulated}]\n"
    )


def test_without_a_file_the_schemas_defaults_count() -> None:
    assert ModelLimits(None).media("anything").images_per_prompt == 16
