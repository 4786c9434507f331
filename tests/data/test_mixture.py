"""Mixtures: token shares follow the weights, runs continue by position."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from crossdiff.data import build
from crossdiff.data.corpus import FilesSource, HubSource, MixtureCorpus
from crossdiff.data.mixture import Mixture
from tests.model_folders import make_tokenizer


def corpus(tmp_path: Path, **changes: Any) -> MixtureCorpus:
    for name, length in (("short", 4), ("long", 40)):
        rows = [{"id": f"{name}{n}", "text": f"{n} " + "the cat " * length} for n in range(200)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = (
        FilesSource(name="short", paths=(str(tmp_path / "short.jsonl"),), weight=0.25),
        FilesSource(name="long", paths=(str(tmp_path / "long.jsonl"),), weight=0.75),
    )
    return MixtureCorpus(**{"name": "both", "sources": sources, "n_tokens": 3000, **changes})


def test_token_shares_keep_to_the_weights_at_every_moment(tmp_path: Path) -> None:
    mixture = Mixture(corpus(tmp_path), make_tokenizer(), organism=None)
    taken = {"short": 0, "long": 0}
    for source, item in mixture:
        taken[source] += len(item.ids)
        total = sum(taken.values())
        assert abs(taken["short"] - 0.25 * total) <= 90
    assert 3000 <= mixture.n_tokens < 3100
    assert mixture.counts()["long"]["tokens"] == taken["long"]


def test_an_exhausted_source_is_recorded_and_the_other_goes_on(tmp_path: Path) -> None:
    mixture = Mixture(corpus(tmp_path, n_tokens=None), make_tokenizer(), organism=None)
    assert len(list(mixture)) == 400
    assert all(counts["exhausted"] for counts in mixture.counts().values())


def hub_corpus(tmp_path: Path) -> MixtureCorpus:
    """Web pages in parquet and chats in jsonl, streamed by the `datasets` library as it streams the hub."""
    import pandas as pd

    pages = [{"text": f"{n} " + "the cat sat on the mat " * (n % 7), "url": f"u{n}"} for n in range(90)]
    chats = [
        {
            "conversation_id": f"c{n}",
            "conversation": [{"role": "user", "content": f"why {n} a dog"}],
        }
        for n in range(90)
    ]
    for name in ("web", "chat"):
        (tmp_path / name).mkdir()
    for part in range(3):
        pd.DataFrame(pages[part::3]).to_parquet(tmp_path / "web" / f"train-{part}.parquet")
    (tmp_path / "chat" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chats))
    sources = (
        HubSource(name="web", dataset=str(tmp_path / "web"), id_column="url"),
        HubSource(
            name="chat",
            dataset=str(tmp_path / "chat"),
            column="conversation",
            id_column="conversation_id",
        ),
    )
    return MixtureCorpus(name="hub", sources=sources, n_tokens=2500)


@pytest.mark.parametrize("kind", ["files", "hub"])
def test_a_killed_token_run_continues_to_the_same_token_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    settings, tokenizer = (hub_corpus if kind == "hub" else corpus)(tmp_path), make_tokenizer()
    whole = build.build_token_set(settings, tokenizer, tmp_path / "whole", organism=None, progress=False)
    monkeypatch.setattr(build, "PART_TOKENS", 500)

    class Killed(Mixture):
        def __iter__(self) -> Any:
            yield from islice(super().__iter__(), 40)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "Mixture", Killed)
        with pytest.raises(KeyboardInterrupt):
            build.build_token_set(settings, tokenizer, tmp_path / "killed", organism=None, progress=False)
    assert list((tmp_path / "killed" / "parts").glob("part_*.npz"))
    again = build.build_token_set(settings, tokenizer, tmp_path / "killed", organism=None, progress=False)
    assert again.token_hash == whole.token_hash
    assert again.details["sources"] == whole.details["sources"]
    assert not (tmp_path / "killed" / "parts").exists()


def test_a_hub_data_set_is_streamed_from_a_position(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    from crossdiff.data.records import records

    rows = [{"text": f"document {n}", "url": f"u{n}"} for n in range(20)]
    asked = []

    def load(*args: Any, **options: Any) -> Any:
        asked.append((args, options))
        return datasets.IterableDataset.from_generator(lambda: iter(rows))

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = HubSource(name="web", dataset="some/data", config="c", revision="abc", id_column="url")
    found = list(records(source, organism=None, start=17))
    assert [(r.id, r.content) for r in found] == [(f"u{n}", f"document {n}") for n in (17, 18, 19)]  # type: ignore[union-attr]
    assert asked == [(("some/data", "c"), {"split": "train", "revision": "abc", "streaming": True})]


def test_an_unreachable_data_set_says_how_to_use_files(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    from crossdiff.data.records import records

    def unreachable(*_args: Any, **_options: Any) -> Any:
        raise ConnectionError("Couldn't reach 'some/data' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(ValueError, match=r"dataset some/data cannot be reached .*use corpus=files"):
        next(records(HubSource(name="web", dataset="some/data"), organism=None))
