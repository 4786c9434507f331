"""Which templates write contents in other letters, from the files of a folder alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crossdiff.models.pair import ModelSettings
from crossdiff.models.template_source import changes_letters

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
