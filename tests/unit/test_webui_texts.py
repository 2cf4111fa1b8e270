"""The page's texts follow cluster.yaml."""

from pathlib import Path

from webui import settings
from webui.settings import PageTexts, current_page_texts

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
