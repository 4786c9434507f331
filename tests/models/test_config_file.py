import json
from pathlib import Path

import pytest

from crossdiff.models.config_file import adapter_base, changes_letters, folder_sizes
from crossdiff.models.pair import ModelSettings


def write(folder: Path, name: str, content: object) -> str:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return str(folder)


@pytest.mark.parametrize(
    "config",
    [
        {"hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 64, "max_position_embeddings": 128},
        {"n_embd": 32, "n_layer": 3, "n_inner": 64, "n_positions": 128},
    ],
)
def test_sizes_are_found_under_every_name(tmp_path: Path, config: dict) -> None:
    for content in (config, {"text_config": config}):
        sizes = folder_sizes(write(tmp_path, "config.json", content))
        assert sizes is not None
        assert (sizes.d_model, sizes.n_blocks, sizes.d_mlp, sizes.n_positions) == (32, 3, 64, 128)


def test_what_is_not_said_is_not_known(tmp_path: Path) -> None:
    sizes = folder_sizes(write(tmp_path, "config.json", {"n_embd": 32, "n_inner": None}))
    assert sizes is not None
    assert (sizes.d_model, sizes.d_mlp, sizes.n_positions) == (32, None, None)
    assert folder_sizes("org/model") is None


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_broken_config_is_named(tmp_path: Path, content: str) -> None:
    folder = write(tmp_path, "config.json", content)
    with pytest.raises(ValueError, match=r"config.json (is no JSON|has list).*save the model again"):
        folder_sizes(folder)


def test_an_adapter_alone_tells_its_base(tmp_path: Path) -> None:
    folder = write(tmp_path, "adapter_config.json", {"base_model_name_or_path": "org/base"})
    assert adapter_base(folder) == "org/base"
    write(tmp_path, "adapter_config.json", {})
    assert adapter_base(folder) == "<its base>"
    write(tmp_path, "config.json", {})
    assert adapter_base(folder) is None


TURN = "{{ m['role'] | upper }}: {{ message.role.capitalize() }}: "


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (TURN + "{{ m['content'] }}", False),
        (TURN + "{{ m['content'] | trim }}", False),
        (TURN + "{{ m['content'] | upper }}", True),
        (TURN + '{{ m["content"].lower() }}', True),
        (TURN + "{{ m.content|title }}", True),
        (TURN + "{{ m['content'].strip().upper() }}", True),
        (TURN + "{{ (m['content'] | trim) | upper }}", True),
        (TURN + "{{ m['content'] | replace('a', 'b') | upper }}", True),
        (TURN + "{{ m.get('content').upper() }}", True),
        (TURN + "{% filter upper %}{{ m['content'] }}{% endfilter %}", True),
        (TURN + "{{ doc.title }}{{ m['content'] }}", False),
    ],
)
@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer_config.json"])
def test_filters_and_methods_on_contents_count(
    template: str, expected: bool, name: str, tmp_path: Path
) -> None:
    text = json.dumps({"chat_template": template}) if name.endswith("json") else template
    (tmp_path / name).write_text(text)
    assert changes_letters(ModelSettings(name="m", path=str(tmp_path))) is expected
    adapted = ModelSettings(name="m", path="a/hub-id", adapter=str(tmp_path))
    assert changes_letters(adapted) is expected


def test_a_hub_model_has_no_files_to_read() -> None:
    assert not changes_letters(ModelSettings(name="m", path="google/gemma-2-9b-it"))
