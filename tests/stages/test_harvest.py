"""Harvest stage: stored rows are the model's block outputs for the stored tokens."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from crossdiff.data.corpus import FilesCorpus
from crossdiff.data.corpus import fingerprint as corpus_fingerprint
from crossdiff.data.paired_activations import MaskSettings, PairedActivations
from crossdiff.data.settings import CacheSource, LiveSource
from crossdiff.data.tokens import TokenSet, write_token_set
from crossdiff.models.pair import ModelSettings, fingerprint
from crossdiff.pipeline.steps import Step
from crossdiff.settings import Runtime
from crossdiff.stages import harvest, tokens
from tests.harvest_process import slow_harvest
from tests.model_folders import (
    ARCHITECTURES,
    MORE_ARCHITECTURES,
    make_tokenizer,
    save_adapter,
    save_model,
)

RUNTIME = Runtime(progress=False)


def write_corpus(path: Path, n: int = 40) -> Path:
    words = ["the", "cat", "sat", "on", "the", "mat", "why", "hello", "because", "red", "blue"]
    with path.open("w") as handle:
        for i in range(n):
            text = " ".join(words[(i * k) % len(words)] for k in range(1, 3 + i % 17)) + f" {i}"
            row: dict[str, Any] = {"id": f"d{i}", "text": text}
            if i % 2:
                row = {
                    "id": f"d{i}",
                    "messages": [
                        {"role": "user", "content": text},
                        {"role": "assistant", "content": "hello user"},
                    ],
                }
            handle.write(json.dumps(row) + "\n")
    return path


def settings(folder: Path, name: str = "tuned", **changes: Any) -> ModelSettings:
    return ModelSettings(name=name, path=str(folder), **{"dtype": "float32", **changes})


def tokens_step(model: ModelSettings, path: Path) -> Step:
    corpus = FilesCorpus(paths=(str(path),), context=64)
    inputs = tokens.TokensInputs(
        corpus=corpus,
        corpus_fingerprint=corpus_fingerprint(corpus),
        tokenizer=model,
        tokenizer_fingerprint=fingerprint(model),
    )
    return Step("tokens", "files", inputs)


def make_tokens(tmp_path: Path, model: ModelSettings, *, n: int = 40) -> Path:
    step = tokens_step(model, write_corpus(tmp_path / "corpus.jsonl", n))
    (tmp_path / "tokens").mkdir()
    tokens.run(step.inputs, {}, tmp_path / "tokens", RUNTIME)  # type: ignore[arg-type]
    return tmp_path / "tokens"


def make_harvest(
    folder: Path,
    model: ModelSettings,
    token_folder: Path,
    *,
    layers: tuple[int, ...] = (1,),
    runtime: Runtime = RUNTIME,
    **source: Any,
) -> dict[str, Any]:
    inputs = harvest.HarvestInputs(
        model=model,
        fingerprint=fingerprint(model),
        layers=layers,
        source=CacheSource(**{"batch_tokens": 256, "shard_tokens": 300, **source}),
    )
    folder.mkdir(exist_ok=True)
    return harvest.run(inputs, {"tokens": token_folder}, folder, runtime)


@pytest.mark.parametrize(
    "architecture",
    [*ARCHITECTURES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_ARCHITECTURES)],
)
def test_stored_rows_are_the_full_models_hidden_states_document_by_document(
    tmp_path: Path, architecture: str
) -> None:
    from transformers import AutoModelForCausalLM

    model = settings(save_model(tmp_path / "model", architecture))
    token_folder = make_tokens(tmp_path, model)
    figures = make_harvest(tmp_path / "packed", model, token_folder, layers=(0, 2))
    make_harvest(tmp_path / "bucketed", model, token_folder, layers=(0, 2), batching="bucket")
    assert figures["n_shards"] > 1
    token_set = TokenSet.open(token_folder)
    full = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", dtype=torch.float32, attn_implementation="eager"
    ).eval()
    for layer in (0, 2):
        data = PairedActivations.open(
            token_folder, [tmp_path / "packed", tmp_path / "bucketed"], layer=layer, mask=MaskSettings()
        )
        for document in range(token_set.n_documents):
            rows = torch.arange(*token_set.offsets[document : document + 2].tolist())
            with torch.inference_mode():
                hidden = full(
                    input_ids=token_set.ids[rows].long()[None], output_hidden_states=True
                ).hidden_states
            x = data.read(rows).x
            for stored in (x[:, 0], x[:, 1]):
                torch.testing.assert_close(stored, hidden[layer + 1][0], rtol=1e-4, atol=1e-5)


def test_two_architectures_of_one_tokenizer_make_a_pair(tmp_path: Path) -> None:
    base = settings(save_model(tmp_path / "b", "llama", seed=1), "base")
    tuned = settings(save_model(tmp_path / "t", "llama", seed=2), "tuned")
    token_folder = make_tokens(tmp_path, tuned)
    for model, name in ((base, "hb"), (tuned, "ht")):
        make_harvest(tmp_path / name, model, token_folder)
    data = PairedActivations.open(token_folder, [tmp_path / "hb", tmp_path / "ht"], layer=1)
    batch = data.training_batch(0, seed=0, batch_size=64)
    assert batch.x.shape == (64, 2, 32)
    assert not torch.equal(batch.x[:, 0], batch.x[:, 1])


def test_layers_harvested_together_equal_layers_harvested_alone_bit_for_bit(tmp_path: Path) -> None:
    model = settings(save_model(tmp_path / "model", "gemma2"))
    token_folder = make_tokens(tmp_path, model)
    make_harvest(tmp_path / "both", model, token_folder, layers=(1, 2))
    make_harvest(tmp_path / "one", model, token_folder, layers=(1,))
    for path in sorted((tmp_path / "one" / "layer_1").iterdir()):
        assert path.read_bytes() == (tmp_path / "both" / "layer_1" / path.name).read_bytes()


def test_a_continued_harvest_has_the_bytes_of_an_undisturbed_one(tmp_path: Path) -> None:
    model = settings(save_model(tmp_path / "model", "llama"))
    token_folder = make_tokens(tmp_path, model)
    make_harvest(tmp_path / "whole", model, token_folder)
    original = harvest_files(tmp_path / "whole")
    stopped = tmp_path / "stopped"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crossdiff.data.harvest.run.write_layer", failing_after(2))
        with pytest.raises(OSError, match="No space left"):
            make_harvest(stopped, model, token_folder)
    assert not (stopped / "layer_1" / "harvest.json").exists()
    figures = make_harvest(stopped, model, token_folder)
    assert figures["n_shards_harvested"] == figures["n_shards"] - 2
    assert harvest_files(stopped) == original


def harvest_files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def failing_after(n: int) -> Any:
    from crossdiff.data.harvest import write as files

    calls = []

    def write(*args: Any, **keywords: Any) -> str:
        calls.append(1)
        if len(calls) > n:
            raise OSError(28, "No space left on device")
        return files.write_layer(*args, **keywords)

    return write


def break_embedding(folder: Path, text: str) -> None:
    """NaN in the embedding of one token, which ends one document of the corpus."""
    from transformers import AutoModelForCausalLM

    broken = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    broken.model.embed_tokens.weight.data[make_tokenizer()(text)["input_ids"][0]] = torch.nan
    broken.save_pretrained(folder)


def test_nan_activations_name_document_and_layer(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "llama")
    break_embedding(folder, "7")
    model = settings(folder)
    token_folder = make_tokens(tmp_path, model)
    with pytest.raises(ValueError, match=r"layer 1 has NaN .* in document 'd7'"):
        make_harvest(tmp_path / "h", model, token_folder)
    with pytest.raises(ValueError, match=r"layer 1 has NaN .* in document 'd7'"):
        make_live(tmp_path / "live", model, token_folder)


def test_nan_activations_of_a_running_model_name_document_and_layer(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "llama")
    model = settings(folder)
    token_folder = make_tokens(tmp_path, model)
    make_live(tmp_path / "live", model, token_folder)
    break_embedding(folder, "7")
    data = PairedActivations.open(token_folder, [tmp_path / "live"], layer=1)
    with pytest.raises(ValueError, match=r"layer 1 has NaN .* in document 'd7'"):
        data.training_batch(0, seed=0, batch_size=64)


def make_live(folder: Path, model: ModelSettings, token_folder: Path) -> None:
    inputs = harvest.HarvestInputs(
        model=model, fingerprint=fingerprint(model), layers=(1,), source=LiveSource(batch_tokens=256)
    )
    folder.mkdir()
    harvest.run(inputs, {"tokens": token_folder}, folder, RUNTIME)


def test_rows_too_large_for_float16_storage_say_so(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = save_model(tmp_path / "model", "llama")
    large = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    large.model.embed_tokens.weight.data *= 1e8
    large.save_pretrained(folder)
    token_folder = make_tokens(tmp_path, settings(folder))
    with pytest.raises(ValueError, match=r"exceeds the range of float16 .* use source.storage=bfloat16"):
        make_harvest(tmp_path / "h", settings(folder), token_folder, storage="float16")


def test_a_model_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    model = settings(save_model(tmp_path / "model", "llama"))
    other = save_model(tmp_path / "other", "llama", tokenizer=make_tokenizer(words=["fox", "quick", "hello"]))
    token_folder = make_tokens(tmp_path, model)
    with pytest.raises(ValueError, match=r"need one tokenizer: .* choose models of one family"):
        make_harvest(tmp_path / "h", settings(other), token_folder)


def test_a_larger_vocabulary_with_the_same_ids_is_a_notice(tmp_path: Path) -> None:
    model = settings(save_model(tmp_path / "model", "llama"))
    larger = make_tokenizer(template=None)
    larger.add_tokens(["<extra_1>", "<extra_2>"])
    base = settings(save_model(tmp_path / "base", "llama", tokenizer=larger), "base")
    token_folder = make_tokens(tmp_path, model)
    notices = make_harvest(tmp_path / "h", base, token_folder)["notices"]
    assert any("differ in size" in notice for notice in notices)
    assert any("base has no chat template of its own" in notice for notice in notices)


def test_token_ids_beyond_the_embeddings_of_a_model_are_refused(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = save_model(tmp_path / "model", "llama")
    token_folder = make_tokens(tmp_path, settings(folder))
    small = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    small.resize_token_embeddings(100)
    small.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"lie beyond the 100 embeddings of .* models of one family"):
        make_harvest(tmp_path / "h", settings(folder), token_folder)


def test_an_adapter_on_its_base_makes_a_pair(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "llama")
    ids = torch.arange(10, 30)[None]
    expected = save_adapter(folder, tmp_path / "adapter", ids)
    base, tuned = settings(folder, "base"), settings(folder, adapter=str(tmp_path / "adapter"))
    assert fingerprint(base) != fingerprint(tuned)
    tokens = write_token_set(
        tmp_path / "tokens",
        documents=[("d", "test")],
        ids=ids[0],
        offsets=torch.tensor([0, ids.shape[1]]),
        kind=torch.zeros(ids.shape[1]),
    )
    make_tokenizer().save_pretrained(tmp_path / "tokens" / "tokenizer")
    for model, name in ((base, "hb"), (tuned, "ht")):
        make_harvest(tmp_path / name, model, tmp_path / "tokens")
    data = PairedActivations.open(tmp_path / "tokens", [tmp_path / "hb", tmp_path / "ht"], layer=1)
    x = data.read(torch.arange(tokens.n_tokens)).x
    torch.testing.assert_close(x[:, 1], expected[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(x[:, 0], x[:, 1])


def test_another_models_draft_is_not_continued(tmp_path: Path) -> None:
    models = [settings(save_model(tmp_path / f"m{n}", "llama", seed=n)) for n in range(2)]
    token_folder = make_tokens(tmp_path, models[0])
    for model, expected in ((models[0], "stopped"), (models[1], "whole")):
        if expected == "stopped":
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("crossdiff.data.harvest.run.write_layer", failing_after(2))
                with pytest.raises(OSError, match="No space left"):
                    make_harvest(tmp_path / "draft", model, token_folder)
        else:
            figures = make_harvest(tmp_path / "draft", model, token_folder)
            assert figures["n_shards_harvested"] == figures["n_shards"]


@pytest.mark.slow
def test_two_workers_write_the_bytes_of_one(tmp_path: Path) -> None:
    model = settings(save_model(tmp_path / "model", "llama"))
    token_folder = make_tokens(tmp_path, model)
    make_harvest(tmp_path / "one", model, token_folder)
    make_harvest(tmp_path / "two", model, token_folder, runtime=Runtime(progress=False, n_workers=2))
    assert harvest_files(tmp_path / "one") == harvest_files(tmp_path / "two")


def test_a_harvest_killed_before_it_was_published_is_not_done_again(tmp_path: Path) -> None:
    model = settings(save_model(tmp_path / "model", "llama"))
    token_folder = make_tokens(tmp_path, model)
    first = make_harvest(tmp_path / "h", model, token_folder)
    again = make_harvest(tmp_path / "h", model, token_folder)
    assert (first["n_shards_harvested"], again["n_shards_harvested"]) == (first["n_shards"], 0)


def test_an_array_task_leaves_the_record_to_the_last_run(tmp_path: Path) -> None:
    model = settings(save_model(tmp_path / "model", "llama"))
    token_folder = make_tokens(tmp_path, model)
    inputs = harvest.HarvestInputs(
        model=model,
        fingerprint=fingerprint(model),
        layers=(1,),
        source=CacheSource(batch_tokens=256, shard_tokens=300),
    )
    (tmp_path / "parts").mkdir()
    n_written = harvest.run_shards(inputs, {"tokens": token_folder}, tmp_path / "parts", RUNTIME)
    assert not (tmp_path / "parts" / "layer_1" / "harvest.json").exists()
    figures = make_harvest(tmp_path / "parts", model, token_folder)
    assert (figures["n_shards"], figures["n_shards_harvested"]) == (n_written, 0)


def test_running_out_of_memory_halves_the_batch_and_records_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossdiff.models.load import TruncatedModel

    model = settings(save_model(tmp_path / "model", "llama"))
    token_folder = make_tokens(tmp_path, model)
    make_harvest(tmp_path / "whole", model, token_folder)
    plain = TruncatedModel.outputs

    # torch raises this error on an accelerator alone, so that here the model has to pretend
    def short_of_memory(self: Any, ids: Any, positions: Any, *, layers: Any, real: Any = None) -> Any:
        if ids.numel() > 200:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, ids, positions, layers=layers, real=real)

    monkeypatch.setattr(TruncatedModel, "outputs", short_of_memory)
    figures = make_harvest(tmp_path / "halved", model, token_folder)
    assert figures["n_splits"] > 0
    data = PairedActivations.open(token_folder, [tmp_path / "whole", tmp_path / "halved"], layer=1)
    x = data.read(data.rows()).x
    torch.testing.assert_close(x[:, 0], x[:, 1], rtol=1e-4, atol=1e-5)


def test_a_document_that_never_fits_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from crossdiff.models.load import TruncatedModel

    def full(*_args: Any, **_keywords: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model = settings(save_model(tmp_path / "model", "llama"))
    token_folder = make_tokens(tmp_path, model)
    monkeypatch.setattr(TruncatedModel, "outputs", full)
    with pytest.raises(ValueError, match=r"one document of \d+ tokens does not fit .* corpus.context lower"):
        make_harvest(tmp_path / "h", model, token_folder, batching="bucket")


def test_a_model_that_mixes_packed_documents_is_refused_unless_bucketed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossdiff.models.load import TruncatedModel

    plain = TruncatedModel.outputs

    def blind_to_positions(self: Any, ids: Any, positions: Any, *, layers: Any, real: Any = None) -> Any:
        return plain(self, ids, None, layers=layers, real=real)

    monkeypatch.setattr(TruncatedModel, "outputs", blind_to_positions)
    model = settings(save_model(tmp_path / "model", "llama"))
    token_folder = make_tokens(tmp_path, model)
    with pytest.raises(ValueError, match=r"mixes documents .* use source.batching=bucket"):
        make_harvest(tmp_path / "h", model, token_folder)
    make_harvest(tmp_path / "b", model, token_folder, batching="bucket")


def test_the_live_source_gives_the_batches_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossdiff.data.paired_activations.WINDOW_BYTES", 40_000)
    models = [settings(save_model(tmp_path / f"m{n}", "llama", seed=n), f"m{n}") for n in range(2)]
    token_folder = make_tokens(tmp_path, models[0])
    for number, model in enumerate(models):
        make_harvest(tmp_path / f"cache{number}", model, token_folder)
        make_live(tmp_path / f"live{number}", model, token_folder)
    cache, live = (
        PairedActivations.open(token_folder, [tmp_path / f"{kind}{n}" for n in range(2)], layer=1)
        for kind in ("cache", "live")
    )
    for number in range(12):
        stored, computed = (data.training_batch(number, seed=3, batch_size=64) for data in (cache, live))
        assert torch.equal(stored.row, computed.row)
        torch.testing.assert_close(stored.x, computed.x, rtol=1e-4, atol=1e-5)
    rows = torch.tensor([300, 2, 299, 50])
    torch.testing.assert_close(cache.read(rows).x, live.read(rows).x, rtol=1e-4, atol=1e-5)
    for stored, computed in zip(cache.statistics(), live.statistics(), strict=True):
        torch.testing.assert_close(stored, computed, rtol=1e-3, atol=1e-5)


def test_outlier_norms_need_the_cache(tmp_path: Path) -> None:
    model = settings(save_model(tmp_path / "model", "llama"))
    token_folder = make_tokens(tmp_path, model)
    make_live(tmp_path / "live", model, token_folder)
    with pytest.raises(ValueError, match="use source=cache"):
        PairedActivations.open(token_folder, [tmp_path / "live"], layer=1, mask=MaskSettings(outlier_norm=3))


@pytest.mark.slow
def test_ten_kills_at_random_moments_leave_the_bytes_of_an_undisturbed_run(tmp_path: Path) -> None:
    model = settings(save_model(tmp_path / "model", "llama"))
    token_folder = make_tokens(tmp_path, model, n=300)
    make_harvest(tmp_path / "whole", model, token_folder, shard_tokens=60)
    inputs = harvest.HarvestInputs(
        model=model,
        fingerprint=fingerprint(model),
        layers=(1,),
        source=CacheSource(batch_tokens=256, shard_tokens=60),
    )
    draft = tmp_path / "draft"
    draft.mkdir()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["crossdiff.stages.harvest", "transformers", "tests.harvest_process"])
    moments = random.Random(0)
    for _ in range(10):
        n_done = len(list(draft.glob("progress/*.json")))
        process = context.Process(target=slow_harvest, args=(inputs, token_folder, draft))
        process.start()
        while process.is_alive() and len(list(draft.glob("progress/*.json"))) <= n_done:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        process.join()
    assert not (draft / "layer_1" / "harvest.json").exists(), "the harvest ended before the tenth kill"
    harvest.run(inputs, {"tokens": token_folder}, draft, RUNTIME)
    assert harvest_files(draft) == harvest_files(tmp_path / "whole")
