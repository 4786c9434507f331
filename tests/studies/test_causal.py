"""The causal study: its plan needs no annotation; its page names what each pair closes."""

from pathlib import Path

from crossdiff.io.tables import write_json
from crossdiff.studies.causal import Causal
from tests.composed import experiment

PLACE = {
    "beaten": 20, "n_draws": 20, "p_value": 1 / 21, "closed_exclusive": 0.41, "closed_random_mean": 0.1,
    "closed_random_most": 0.2, "closed_all": 0.8, "margin": 0.31, "margin_low": 0.25, "margin_high": 0.36,
    "n_documents": 9, "n_tokens": 90, "closed_equal_energy": 0.3, "closed_top_energy": 0.5,
    "beaten_at_equal_energy": 20, "energy_exclusive": 0.165, "energy_random_mean": 0.062,
    "energy_top_energy": 0.2,
}  # fmt: skip


def test_it_stands_on_training_and_scaling_alone() -> None:
    from crossdiff.pipeline.plan import plan

    stages = [step.stage for step in plan(experiment("experiment=causal", "size=ci"))]
    assert stages.count("causal") == stages.count("train") == stages.count("scale") == 2
    assert "annotate" not in stages
    assert "report" not in stages


def test_the_answer_names_shares_and_beaten_draws_and_missing_sets(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    record = {
        "n_exclusive": 7, "n_draws": 20, "draws_within_tolerance": 19, "tolerance": 0.2, "latents_alike": 0.9,
        "density_ratio": [0.9, 1.1], "energy_ratio": [0.8, 1.1], "places": {"all tokens": PLACE},
    }  # fmt: skip
    write_json(record, tmp_path / "first" / "causal.json")
    line = "all tokens,exclusive,0.1,0.09,0.11,0.41,0.4,0.42"
    columns = "where,condition,kl,kl_low,kl_high,closed,closed_low,closed_high"
    (tmp_path / "first" / "causal.csv").write_text(f"{columns}\n{line}\n")
    write_json(
        {"n_exclusive": 0, "sentence": "No latent.", "places": {}}, tmp_path / "second" / "causal.json"
    )
    found = Causal().analyse({}, {"first": tmp_path / "first", "second": tmp_path / "second"})
    assert "7 exclusive latents close 41% of the gap at all tokens" in found.answer
    assert "20 of 20 beaten; shrunk to their patch energy 30%; as many other latents" in found.answer
    assert "16.5% for the exclusive latents, 6.2% for random sets" in found.notes[0]
    assert "second: No latent." in found.answer
    assert [chart.name for chart in found.charts] == ["causal_first"]
    assert "19 of 20 random sets" in found.notes[0]


def test_models_that_predict_alike_have_no_gap_to_close(tmp_path: Path) -> None:
    closed = {name: None for name in PLACE if name.startswith(("closed", "margin"))}
    record = {
        "n_exclusive": 7, "n_draws": 20, "draws_within_tolerance": 19, "tolerance": 0.2,
        "latents_alike": None, "density_ratio": [None, 1.1], "energy_ratio": [0.8, 1.1],
        "places": {"all tokens": PLACE | closed | {"beaten": 0}},
    }  # fmt: skip
    write_json(record, tmp_path / "causal.json")
    columns = "where,condition,kl,kl_low,kl_high,closed,closed_low,closed_high"
    (tmp_path / "causal.csv").write_text(f"{columns}\nall tokens,exclusive,0,0,0,,,\n")
    found = Causal().analyse({}, {"pair": tmp_path})
    assert "close no gap at all tokens, where both models predict alike" in found.answer
    assert found.tiles[0]["value"] == "unknown"
    assert "summed density (unknown of it)" in found.notes[0]
