"""Tables become subjects in rank order; an example keeps its window as it was."""

from __future__ import annotations

from pathlib import Path

from crossdiff.annotation.subjects import background_documents, examples_by_latent
from crossdiff.io.tables import read_table
from tests.planted_documents import write_documents


def test_examples_and_background_are_read_from_the_documents_artifact(tmp_path: Path) -> None:
    folder = write_documents(tmp_path / "d", "pt_it", ["translation", "mathematics"])
    found = examples_by_latent(
        read_table(folder / "examples.parquet", kind="examples").sample(frac=1, random_state=0)
    )
    assert set(found) == {0, 1}
    assert [example.document_id for example in found[1]["explain"]] == [f"explain-1-{n}" for n in range(6)]
    assert all(example.codes[example.peak] == 2 for example in found[0]["score"])
    background = background_documents(read_table(folder / "background.parquet", kind="background"))
    assert len(background) == 120
