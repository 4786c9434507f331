"""Every option of every group composes, is built, and can be planned; mistakes get one clear message."""

from pathlib import Path

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

from crossdiff import mistakes
from crossdiff.io.environment import conf_dir
from crossdiff.pipeline.plan import plan
from tests.composed import experiment as build

PAIR = ["model_pair=pt_simpo", "layer=20"]
REQUIRED = {
    ("model_pair", "custom"): ["model_pair.base=org/base", "model_pair.tuned=org/tuned"],
    ("corpus", "files"): ["corpus.paths=[README.md.txt]"],
    ("annotator", "anthropic_compatible"): ["annotator.base_url=http://localhost:1", "annotator.model=m"],
    ("annotator", "replay"): ["annotator.ledger=ledger.sqlite"],
    ("annotator", "transformers"): ["annotator.path=folder"],
    ("taxonomy", "file"): ["taxonomy.path=taxonomy.yaml"],
    ("source", "files"): ["source.activations={base: base.npy, tuned: tuned.npy}", "source.ids=ids.npy"],
}


def options() -> list[tuple[str, str]]:
    return [(path.parent.name, path.stem) for path in sorted(conf_dir().glob("*/*.yaml"))]


@pytest.mark.parametrize(("group", "option"), options())
def test_every_option_of_every_group_is_built(group: str, option: str) -> None:
    if group == "experiment":
        overrides = [f"experiment={option}"]
    elif group == "size":
        overrides = [f"size={option}"]
    elif group in ("model_pair", "comparison"):
        overrides = [f"{group}={option}", "layer=1"]
    else:
        overrides = [*PAIR, f"{group}={option}"]
    experiment = build(*overrides, *REQUIRED.get((group, option), []))
    assert experiment.layer >= 0


@pytest.mark.parametrize("option", [option for group, option in options() if group == "experiment"])
def test_every_experiment_can_be_planned(option: str) -> None:
    steps = plan(build(f"experiment={option}"))
    assert steps[-1].stage in ("report", "study")
    assert len({step.key for step in steps}) == len(steps)


@pytest.mark.parametrize(
    ("sparsity", "architecture", "norm", "loss"),
    [
        ("batch_topk", "dedicated", "none", "squared"),
        ("topk", "diff_sae", "mixed", "norm"),
        ("l1", "standard", "concat", "squared"),
        ("jumprelu", "designated_shared", "sum", "norm"),
    ],
)
def test_every_variant_of_a_crosscoder_has_its_name(sparsity, architecture, norm, loss) -> None:
    asked = build(
        *PAIR, f"sparsity={sparsity}", f"dictionary.architecture={architecture}", "action=train",
        f"dictionary.code_norm={norm}", f"training.loss={loss}",
    )  # fmt: skip
    assert type(asked.sparsity).__name__.lower() == sparsity.replace("_", "")
    assert (asked.dictionary.architecture, asked.dictionary.code_norm) == (architecture, norm)
    assert asked.training.loss == loss


def message(*overrides: str) -> str | None:
    try:
        build(*overrides)
    except Exception as error:  # noqa: BLE001  mistakes.explain sees every failure
        return mistakes.explain(error)
    return None


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["model_pair=pt_simp", "layer=20"], ["model_pair=pt_simp", "pt_simpo"]),
        ([*PAIR, "layr=3"], ["layr", "layer"]),
        ([*PAIR, "training.learning_rat=1e-3"], ["learning_rat", "training.learning_rate"]),
        (["model_pair=pt_simpo"], ["layer has no value", "layer=20"]),
        (["layer=3"], ["neither", "experiment=demo"]),
        ([*PAIR, "comparison=it_vs_simpo"], ["both"]),
        ([*PAIR, "layer=-1"], ["layer=-1"]),
        ([*PAIR, "layer=1.5"], ["layer=1.5"]),
        ([*PAIR, "sparsity.k=0"], ["k=0"]),
        ([*PAIR, "action=fly"], ["action='fly'", "run"]),
        ([*PAIR, "+surprise=1"], ["surprise is no setting"]),
        ([*PAIR, "sparsity.k=200000", "sparsity.k_initial=null"], ["200,000", "114,688"]),
        ([*PAIR, "sparsity._target_=nowhere.Mine"], ["'nowhere.Mine'", "PYTHONPATH"]),
        ([*PAIR, "sparsity._target_=crossdiff.core.sparsity.L2"], ["L2", "PYTHONPATH"]),
    ],
)
def test_a_mistake_names_the_value_the_rule_and_the_way_out(overrides: list[str], parts: list[str]) -> None:
    text = message(*overrides)
    assert text is not None
    assert [part for part in parts if part not in text] == [], text


def test_a_study_takes_its_values_at_the_size_and_the_command_line_wins() -> None:
    paper = build("experiment=ablation", "size=paper", "study.l1.penalty=3", "study.k=[7]").study
    assert (paper.k, paper.n_latents, paper.sparsities[-1]) == ((7,), (32768, 114688), "jumprelu")
    assert (paper.l1.penalty, paper.l1.warmup_steps, paper.jumprelu.warmup_steps) == (3, 2000, 2000)
    assert build("study=causal", "comparison=toy_it_vs_simpo", "layer=2").study.n_documents == 200
    assert build("experiment=llama3", "size=paper").study.pair.name == "llama3_pt_it"
    assert build("experiment=llama3", "size=ci").study.pair is None


def test_paper_scale_plans_know_their_cost() -> None:
    steps = plan(build("comparison=it_vs_simpo", "layer=20"))
    harvests = [step for step in steps if step.stage == "harvest"]
    assert sorted(step.label for step in harvests) == ["it", "pt", "simpo"]
    for step in harvests:
        # 200M tokens x 3584 values x 2 bytes; 8.3 GFLOP per token at 60 % of 790 TFLOP/s
        assert step.cost.disk_gb == pytest.approx(1433.6)
        assert step.cost.gpu_hours == pytest.approx(0.976, rel=0.01)


def test_conf_is_found_from_the_checkout() -> None:
    assert conf_dir() == Path(__file__).resolve().parents[1] / "conf"


def test_every_block_of_the_main_file_names_exactly_the_settings_of_its_class() -> None:
    """Otherwise Hydra refuses a documented setting as unknown."""
    main = OmegaConf.to_container(OmegaConf.load(conf_dir() / "config.yaml"))
    assert isinstance(main, dict)
    blocks = {name: block for name, block in main.items() if isinstance(block, dict) and "_target_" in block}
    assert {"mask", "documents", "export", "validate", "compare"} <= set(blocks)
    for name, block in blocks.items():
        given = set(block) - {"_target_"}
        assert given == set(get_class(block["_target_"]).model_fields), name


def test_written_defaults_are_those_of_the_classes() -> None:
    built = build(*PAIR)
    assert built.mask == type(built.mask)()
    assert built.documents == type(built.documents)()
