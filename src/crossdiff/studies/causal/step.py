"""Stage causal: share of the distance to the tuned model that exclusive latents close (method section 7)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossdiff.core.exclusive_call import exclusive_latents
from crossdiff.io.progress import track
from crossdiff.io.tables import read_table, write_json
from crossdiff.models.pair import resolve
from crossdiff.report.formatting import finite
from crossdiff.settings import Runtime
from crossdiff.stages.protocol import Stage, needs
from crossdiff.studies.causal import WHERE, CausalInputs

VERSION = 3


def run(inputs: CausalInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> dict[str, Any]:
    """Write `causal.csv` (a row per place and condition) and `causal.json` (verdicts, how draws matched)."""
    import torch

    from crossdiff.models.generate import load_causal
    from crossdiff.stages.activations import open_activations, open_crosscoder
    from crossdiff.studies.causal.evaluation import Documents, evaluate
    from crossdiff.studies.causal.patched_documents import choose_sets, matching, one_document, spread

    activations = open_activations(parents, inputs.layer, inputs.mask, device=runtime.device)
    crosscoder = open_crosscoder(parents, activations).to(runtime.device).requires_grad_(requires_grad=False)
    table = read_table(parents["scale"] / "latents.parquet", kind="latents")
    documents = spread(activations.token_set.n_documents, inputs.n_documents)
    chosen = torch.tensor(exclusive_latents(table, "tuned"), dtype=torch.int64)
    if len(chosen) == 0:
        return _nothing(draft, 0, "No latent is exclusive to the tuned model, so there is nothing to patch.")
    sets = choose_sets(inputs, activations, crosscoder, chosen=chosen, documents=documents)
    if sets is None:
        silent = "No exclusive latent fires in these documents: nothing to patch; set n_documents higher."
        return _nothing(draft, len(chosen), silent)
    tuned = load_causal(
        inputs.tuned,
        resolve(inputs.tuned, parents.get("organism")),
        layer=inputs.layer,
        device=runtime.device,
    )
    sums = Documents()
    for document in track(documents.tolist(), description="causal", enabled=runtime.progress):
        sums.add(*one_document(inputs, activations, crosscoder, document, tuned=tuned, sets=sets))
    rows, places = evaluate(sums, WHERE, n_draws=inputs.n_draws, resamples=inputs.resamples, seed=inputs.seed)
    rows.to_csv(draft / "causal.csv", index=False)
    record = {
        "version": 2,
        "n_documents": len(documents),
        "n_exclusive": len(chosen),
        **matching(sets.draws),
        "places": places,
    }
    write_json(finite(record), draft / "causal.json")
    return {"n_exclusive": len(chosen), **{f"beaten_{i}": v["beaten"] for i, v in enumerate(places.values())}}


def _nothing(draft: Path, n_exclusive: int, sentence: str) -> dict[str, Any]:
    record = {"n_exclusive": n_exclusive, "sentence": sentence}
    write_json({"version": 1, **record, "places": {}}, draft / "causal.json")
    return record


STAGE = Stage(
    "causal",
    version=VERSION,
    run=run,
    reads=("tokens", "harvest", "train", "scale", "organism", "blend"),
    writes="how far exclusive latents carry the base towards the tuned model",
    resources=needs(gpus=1, cpus=8, memory_gb=96, hours=8),
)
