"""An agreement belongs to the annotations it was made on."""

from __future__ import annotations

from pathlib import Path

from crossdiff.io.tables import write_json
from crossdiff.report.human_check import AGREEMENT, FOLDER, read_agreement


def test_the_agreement_of_other_annotations_is_not_shown(tmp_path: Path) -> None:
    assert read_agreement(tmp_path, annotate="new") is None
    (tmp_path / FOLDER).mkdir()
    write_json({"version": 1, "annotate": "old"}, tmp_path / FOLDER / AGREEMENT)
    assert read_agreement(tmp_path, annotate="new") is None
    assert read_agreement(tmp_path, annotate="old") is not None
