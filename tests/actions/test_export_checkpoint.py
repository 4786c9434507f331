"""A trained crosscoder leaves the store in the format of another toolkit, or in our own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from crossdiff import actions, config
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.io.artifacts import MANIFEST
from crossdiff.io.environment import conf_dir
from crossdiff.io.interop import load_dictionary_learning
from crossdiff.pipeline.plan import plan


def experiment(folder: Path, *overrides: str) -> config.Experiment:
    given = [
        "model_pair=toy_pt_it", "corpus=toy", "layer=1", "action=export", "export.what=checkpoint",
        f"store={folder}/store", f"export.folder={folder}/export", *overrides,
    ]  # fmt: skip
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return config.load(compose("config", overrides=given))


def trained(asked: config.Experiment, *, threshold: float = 2.0) -> Crosscoder:
    """A crosscoder where the finished train step of `asked` has it."""
    step = next(step for step in plan(asked) if step.stage == "train")
    made = Crosscoder(
        DictionarySettings(n_latents=40), n_models=2, d_model=6, metadata={"training": {"k": 5}}
    )
    made.initialise_(torch.Generator().manual_seed(0))
    made.normaliser.scale.fill_(0.7)
    made.normaliser.mean.fill_(0.1)
    made.threshold.fill_(threshold)
    made.save(step.folder(asked.store) / "crosscoder")
    (step.folder(asked.store) / MANIFEST).write_text("{}")
    return made


def test_an_exported_checkpoint_encodes_as_the_crosscoder_it_came_from(tmp_path: Path, capsys) -> None:
    asked = experiment(tmp_path, "export.format=dictionary_learning")
    made, x = trained(asked), torch.randn(20, 2, 6, generator=torch.Generator().manual_seed(1))
    assert actions.perform([asked]) == 0
    folder = tmp_path / "export" / "toy_pt_it_1"
    assert capsys.readouterr().out == f"checkpoint: {folder}\n"
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "model.pt", "config.json"}
    found = load_dictionary_learning(folder)
    code = made.encode(x)
    assert 0 < int((code > 0).sum()) < code.numel()
    torch.testing.assert_close(found.encode(x), code, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.decode(code), made.decode(code), rtol=1e-5, atol=1e-5)


def test_our_own_format_keeps_everything_and_runs_of_one_pair_do_not_collide(tmp_path: Path, capsys) -> None:
    runs = [experiment(tmp_path, "export.format=crossdiff", f"seed={seed}") for seed in (0, 1)]
    for number, asked in enumerate(runs):
        trained(asked, threshold=1.0 + number)
    assert actions.perform(runs) == 0
    folders = [line.removeprefix("checkpoint: ") for line in capsys.readouterr().out.splitlines()]
    assert [float(Crosscoder.load(folder).threshold) for folder in folders] == [1.0, 2.0]
    assert Crosscoder.load(folders[0]).metadata == {"training": {"k": 5}}


def test_an_untrained_pair_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train toy_pt_it .*is not finished.*action=run first"):
        actions.perform([experiment(tmp_path)])


def test_a_hub_upload_gets_one_crosscoder_in_our_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """The hub itself is out of reach of a test; what is sent there is checked in core/test_checkpoint."""
    sent = []
    monkeypatch.setattr(
        "crossdiff.core.checkpoint.push", lambda folder, hub_id: sent.append((folder.name, hub_id)) or "url"
    )
    runs = [
        experiment(tmp_path, "export.format=crossdiff", "export.hub_id=me/it", f"seed={seed}")
        for seed in (0, 1)
    ]
    for asked in runs:
        trained(asked)
    assert actions.perform(runs[:1]) == 0
    assert sent == [("toy_pt_it_1", "me/it")]
    assert capsys.readouterr().out == "checkpoint: url\n"
    with pytest.raises(ValueError, match=r"export.hub_id names one repository, this command has 2"):
        actions.perform(runs)
