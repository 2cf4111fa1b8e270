"""The page's environment."""

from pathlib import Path

import pytest

from webui import settings
from webui.settings import EndpointAddress, SettingsError, WebuiSettings


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
        "MANYEYES_GATEWAY_URL wants an address like http://gateway:8079, found 'gateway'",
        "MANYEYES_WEBUI_PORT wants a whole number from 1 to 65535, found 'x'",
        "MANYEYES_MAX_BODY_MB wants a whole number from 1 to 4096, found '0'",
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
    with pytest.raises(SettingsError, match="pools wants a list of pools, found 3"):
        settings.read_settings({"MANYEYES_CONFIG": str(file)})
