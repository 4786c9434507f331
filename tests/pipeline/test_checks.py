"""What a plan refuses before any model has run."""

import json
from pathlib import Path

import pytest

from crossdiff.data.corpus import FilesCorpus
from crossdiff.models.pair import Comparison, custom_pair
from crossdiff.pipeline.checks import check_first_records, notices
from crossdiff.pipeline.plan import plan
from tests.composed import experiment


def folder(path: Path, **config: object) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"num_hidden_layers": 3, **config}))
    return path


def planned(base: Path, tuned: Path, *overrides: str) -> list:
    documents = base.parent / "text.txt"
    documents.write_text("words")
    pair = ("model_pair=custom", f"model_pair.base={base}", f"model_pair.tuned={tuned}", "layer=1")
    return plan(experiment(*pair, "corpus=files", f"corpus.paths=[{documents}]", *overrides))


def test_a_context_is_at_most_the_positions_of_both_models(tmp_path: Path) -> None:
    base = folder(tmp_path / "base", n_embd=32, n_positions=2048)
    tuned = folder(tmp_path / "tuned", n_embd=32, n_positions=128)
    with pytest.raises(ValueError, match=r"context=129 .* 128 positions of .*tuned.*corpus.context=128"):
        planned(base, tuned, "corpus.context=129")
    assert planned(base, tuned, "corpus.context=128")


def test_the_default_context_is_the_smaller_of_both_models_and_is_told(tmp_path: Path) -> None:
    base = folder(tmp_path / "base", n_embd=32, n_positions=2048)
    tuned = folder(tmp_path / "tuned", n_embd=32, n_positions=128)
    given, default = planned(base, tuned, "corpus.context=128"), planned(base, tuned)
    assert [step.key for step in given] == [step.key for step in default]
    larger = folder(tmp_path / "larger", n_embd=32, n_positions=4096)
    given, default = planned(base, larger, "corpus.context=1024"), planned(base, larger)
    assert [step.key for step in given] == [step.key for step in default]
    pair = ("model_pair=custom", f"model_pair.base={base}", f"model_pair.tuned={tuned}", "layer=1")
    (told,) = notices(experiment(*pair, "corpus=files", "corpus.paths=[x.txt]"))
    assert told == f"corpus.context=128: {tuned} has no more positions, and longer documents are cut there"
    assert not [*notices(experiment(*pair, "corpus=files", "corpus.paths=[x.txt]", "corpus.context=64"))]


def test_pairs_of_different_bases_are_told(tmp_path: Path) -> None:
    names = ("one", "two", "tuned", "other")
    one, two, tuned, other = (str(folder(tmp_path / n, hidden_size=32, x=n)) for n in names)
    asked = experiment("model_pair=custom", f"model_pair.base={one}", f"model_pair.tuned={tuned}", "layer=1")
    differ = f"different base models ({one} and {two})"
    for base, second, expected in (
        (two, tuned, [differ]),
        (one, other, []),
        (one, tuned, ["the same two models"]),
    ):
        pairs = custom_pair(one, tuned, name="a"), custom_pair(base, second, name="b")
        comparison = Comparison(reference=pairs[0], treatment=pairs[1])
        told = [*notices(asked.model_copy(update={"model_pair": None, "comparison": comparison}))]
        assert len(told) == len(expected)
        assert all(part in line for part, line in zip(expected, told, strict=True))


def test_models_of_two_widths_are_named(tmp_path: Path) -> None:
    base = folder(tmp_path / "base", hidden_size=32)
    with pytest.raises(ValueError, match="base has 32, .*tuned has 64"):
        planned(base, folder(tmp_path / "tuned", hidden_size=64))


def test_an_adapter_needs_its_model(tmp_path: Path) -> None:
    model, adapter = folder(tmp_path / "model", hidden_size=32), tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "org/its_base"}')
    with pytest.raises(ValueError, match=f"tuned=org/its_base model_pair.tuned_adapter={adapter}"):
        planned(model, adapter)
    with pytest.raises(ValueError, match=r"merge it into its model \(org/its_base"):
        planned(adapter, model)
    with pytest.raises(ValueError, match="has none of adapter_model.safetensors"):
        planned(model, model, f"model_pair.tuned_adapter={adapter}")
    (adapter / "adapter_model.bin").touch()
    assert planned(model, model, f"model_pair.tuned_adapter={adapter}")


def test_one_model_twice_is_refused_but_by_studies(tmp_path: Path) -> None:
    model = folder(tmp_path / "model", hidden_size=32)
    with pytest.raises(ValueError, match="are one model.*experiment=self_diff"):
        planned(model, model)
    assert plan(experiment("experiment=self_diff", "size=ci"))
    assert plan(experiment("experiment=seed_null", "size=ci"))


def test_a_corpus_asked_for_fills_a_batch(tmp_path: Path) -> None:
    base, tuned = folder(tmp_path / "base", n_embd=32), folder(tmp_path / "tuned", n_embd=32, x=1)
    sizes = ("corpus.context=100", "training.batch_size=2048")
    with pytest.raises(ValueError, match=r"corpus.n_tokens=1,948 .* training.batch_size=2,048"):
        planned(base, tuned, *sizes, "corpus.n_tokens=1948")
    assert planned(base, tuned, *sizes, "corpus.n_tokens=1949")


def test_a_file_whose_first_record_has_no_text_is_refused_before_the_first_step(tmp_path: Path) -> None:
    good, bad = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    good.write_text('{"text": "a cat"}\n')
    bad.write_text('{"prompt": "a", "response": "b"}\n')
    corpus = FilesCorpus(paths=(str(good), str(bad)))
    with pytest.raises(ValueError, match=r"b.jsonl:1 has keys \['prompt', 'response'\] but none of text"):
        check_first_records(corpus, "1")
    check_first_records(corpus.model_copy(update={"column": "prompt", "paths": (str(bad),)}), "2")
    check_first_records(corpus.model_copy(update={"skip_bad": True}), "3")
    enough = corpus.model_copy(update={"n_tokens": 2})
    check_first_records(enough, "4")
    with pytest.raises(ValueError, match=r"b.jsonl:1 has keys"):
        check_first_records(enough.model_copy(update={"paths": (str(bad), str(good))}), "5")
