import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import crossdiff
from crossdiff.io.tables import read_json, write_json
from tests.notebook.conftest import results_of


def test_the_latent_table_has_the_labels_of_its_annotations(run) -> None:
    assert run.pairs == ["pt_it", "pt_simpo"]
    latents = run.latents("pt_it")
    given = {row["latent"]: row for row in run.source("pt_it").annotations}
    labelled = latents[latents["state"].notna()]
    assert set(labelled["latent"]) == set(given)
    assert all(row.category == given[row.latent]["category"] for row in labelled.itertuples())
    assert latents.loc[~latents["latent"].isin(list(given)), "category"].isna().all()
    assert len(latents) == run.source("pt_it").latents.shape[0]


def test_an_exclusive_latent_that_is_also_a_control_keeps_its_own_label(run) -> None:
    source = run.source("pt_it")
    latent = run.selected("pt_it")[0]
    source.annotations.append(
        source.annotations[0] | {"latent": latent, "role": "control", "category": "other"}
    )
    assert run.annotations("pt_it")[latent]["role"] == "exclusive_tuned"


def test_deltas_settings_and_every_figure_are_there(run, results: Path) -> None:
    assert run.deltas.equals(run.comparison.deltas)
    assert run.deltas is not run.comparison.deltas
    assert run.settings == {"layer": 2}
    assert len(run.figure("changes").data) > 0
    for name in ("nu", "delta_norm", "delta-norm", "density", "norms", "cosines", "training", "stops"):
        assert run.figure(name, "pt_it").to_plotly_json()["data"], name


def test_examples_are_the_latents_own_documents_once_each(run) -> None:
    latent = run.selected("pt_simpo")[0]
    found = run.examples("pt_simpo", latent)
    assert set(found.table["latent"]) == {latent}
    assert found.table["document_id"].is_unique
    assert found.table["peak_code"].is_monotonic_decreasing
    assert str(found).startswith(f"pt_simpo, latent {latent}")


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda run: run.latents("pt_dpo"), "'pt_dpo' is no pair of .* it has pt_it, pt_simpo"),
        (lambda run: run.crosscoder("x"), "it has pt_it, pt_simpo"),
        (lambda run: run.figure("bars"), "no figure 'bars'; there are changes, multiverse, delta_norm, nu"),
        (lambda run: run.figure("nu"), "shows one pair; give pair= one of pt_it, pt_simpo"),
        (lambda run: run.figure("multiverse"), "has no figure 'multiverse'"),
        (lambda run: run.examples("pt_it", -1), "whose latents are 0 to"),
        (lambda run: run.examples("pt_it", 10**6), "whose latents are 0 to"),
        (lambda run: run.examples("pt_it", True), "latent True is not one of"),
        (
            lambda run: run.examples("pt_it", len(run.latents("pt_it")) - 1),
            "no documents: they were collected",
        ),
    ],
)
def test_a_wrong_name_is_one_error_that_lists_what_there_is(run, ask, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ask(run)


def test_a_run_of_difference_dictionaries_says_what_it_has_not(tmp_path: Path) -> None:
    found = crossdiff.open_run(results_of(tmp_path))
    for pair in found.pairs:
        source = found.source(pair)
        object.__setattr__(source, "latents", source.latents.assign(sign="up"))
    for ask in (lambda: found.figure("training", "pt_it"), lambda: found.relabel(lambda _: "a")):
        with pytest.raises(ValueError, match=r"pt_it has a difference dictionary \(diff_sae\), so it has no"):
            ask()


def test_a_run_of_one_pair_needs_no_pair_named_and_has_no_deltas(tmp_path: Path) -> None:
    run = crossdiff.open_run(str(results_of(tmp_path, pairs=("pt_it",))))
    assert run.figure("nu").data
    with pytest.raises(ValueError, match="compares no two pairs"):
        _ = run.deltas
    with pytest.raises(ValueError, match="one pair; it has figures delta_norm"):
        run.figure("changes")


def test_results_and_store_can_be_moved_together_or_the_store_named(tmp_path: Path) -> None:
    results = results_of(tmp_path / "a")
    moved = tmp_path / "b"
    shutil.move(tmp_path / "a", moved)
    again = crossdiff.open_run(moved / "results" / "demo")
    assert again.pairs == ["pt_it", "pt_simpo"]
    shutil.move(moved / "store", tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="are not in .*; say where they are with store="):
        crossdiff.open_run(moved / "results" / "demo")
    assert crossdiff.open_run(moved / "results" / "demo", store=tmp_path / "elsewhere").pairs == again.pairs
    assert not results.exists()


def test_an_older_summary_without_store_is_found_beside(tmp_path: Path) -> None:
    path = results_of(tmp_path) / "summary.json"
    write_json({key: value for key, value in read_json(path).items() if key != "store"}, path)
    assert crossdiff.open_run(path.parent).pairs == ["pt_it", "pt_simpo"]


def test_a_folder_that_is_no_run_is_refused_with_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no summary.json"):
        crossdiff.open_run(tmp_path)
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(ValueError, match="not readable JSON"):
        crossdiff.open_run(tmp_path)
    write_json({"steps": [{"name": "study layers", "key": "k"}]}, tmp_path / "summary.json")
    (tmp_path / "run_a").mkdir()
    write_json({}, tmp_path / "run_a" / "summary.json")
    with pytest.raises(ValueError, match="answer of a study.*open one of its runs: run_a"):
        crossdiff.open_run(tmp_path)


def test_importing_crossdiff_loads_no_library() -> None:
    program = (
        "import sys, crossdiff; crossdiff.__all__\n"
        "print(sorted({'torch', 'pandas', 'numpy', 'plotly', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_own_labels_by_function_mapping_and_table_give_one_table_of_deltas(run) -> None:
    asked = {pair: run.selected(pair) for pair in run.pairs}
    label = {(pair, j): "even" if j % 2 == 0 else "odd" for pair, latents in asked.items() for j in latents}
    by_function = run.relabel(lambda examples: label[examples.pair, examples.latent], draws=100)
    nested = {pair: {j: label[pair, j] for j in latents} for pair, latents in asked.items()}
    table = pd.DataFrame([{"pair": p, "latent": j, "label": value} for (p, j), value in label.items()])
    for other in (label, nested, table, table.rename(columns={"label": "category"})):
        assert run.relabel(other, draws=100).equals(by_function)
    rows = by_function[by_function["level"] == "category"].set_index("name")
    counted = sum(value == "even" for (pair, _), value in label.items() if pair == "pt_it")
    assert rows.loc["even", "count_reference"] == counted
    assert rows.loc["even", "total_reference"] == len(asked["pt_it"])
    assert by_function.attrs["n_unlabelled"] == {}


def test_latents_without_a_label_are_left_out_and_counted(run) -> None:
    first = run.selected("pt_it")[0]
    with pytest.warns(UserWarning, match="without a label.* 1 of pt_it latents"):
        found = run.relabel(lambda e: None if (e.pair, e.latent) == ("pt_it", first) else "a", draws=100)
    assert found.attrs["n_unlabelled"] == {"pt_it": 1}
    assert found.loc[found["name"] == "a", "total_reference"].item() == len(run.selected("pt_it")) - 1


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (3, "labels are int; give a function"),
        ({("pt_dpo", 1): "a"}, "'pt_dpo' is no pair"),
        ({("pt_it", 99999): "a"}, "latent 99999 of pt_it is given a label and is not among"),
        ({"pt_it": "a"}, "the labels have key 'pt_it'"),
        (lambda examples: 3, "label 3 is int"),
        (pd.DataFrame({"latent": [1]}), "has columns latent; it needs pair, latent and label"),
        (pd.DataFrame({"pair": ["pt_it"] * 2, "latent": [1, 1], "label": ["a", "b"]}), "latent 1 of pt_it"),
    ],
)  # fmt: skip
def test_labels_of_another_form_are_refused(run, labels, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        run.relabel(labels)
