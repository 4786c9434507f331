"""Causal check: how much of the distance to the tuned model the exclusive latents close (method.md 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor

from crossdiff.core.active_products import active_code
from crossdiff.core.codes import SparseCode
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import code_norm
from crossdiff.core.exclusive_call import exclusive_latents
from crossdiff.core.streaming import mix
from crossdiff.data.answers import answer_places
from crossdiff.data.paired_activations import PairedActivations
from crossdiff.data.settings import MaskSettings
from crossdiff.io.progress import track
from crossdiff.io.tables import read_table, write_json
from crossdiff.models.causal import CausalModel, load_causal
from crossdiff.models.pair import ModelSettings, resolve
from crossdiff.report.formatting import finite
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.activations import open_activations, open_crosscoder
from crossdiff.stages.protocol import Stage, needs
from crossdiff.studies.causal.matched_sets import MatchedSets, matched_sets
from crossdiff.studies.causal.patching import difference_directions, divergence, gap_closed, patches, sets_of

if TYPE_CHECKING:
    import pandas as pd

VERSION = 2
WHERE = ("all tokens", "first answer tokens")
TOLERANCE = 0.2


class CausalInputs(Settings):
    """What determines the check, beside the parents (tokens, harvests, train, scale of one pair).

    tuned         the tuned model, whose later blocks read the patched states
    n_documents   documents, drawn from all over the corpus
    n_draws       random sets, matched on density and energy
    first         answer tokens that the second figure looks at
    """

    layer: int = Field(ge=0)
    tuned: ModelSettings
    mask: MaskSettings = MaskSettings()
    n_documents: int = Field(default=200, ge=2)
    n_draws: int = Field(default=20, ge=1)
    first: int = Field(default=10, ge=1)
    resamples: int = Field(default=2000, ge=100)
    states_at_a_time: int = Field(default=8, ge=1)
    seed: int = 0


@dataclass
class Documents:
    """Sums of KL per condition and place (`WHERE`), one column per document, and how many places."""

    sums: list[Tensor] = field(default_factory=list)
    counts: list[Tensor] = field(default_factory=list)

    def add(self, kl: Tensor, places: tuple[Tensor, Tensor]) -> None:
        """KL [condition, token] of one document, and the tokens that each of `WHERE` looks at."""
        self.sums.append(torch.stack([kl[:, chosen].double().sum(dim=1) for chosen in places]))
        self.counts.append(torch.tensor([len(chosen) for chosen in places], dtype=torch.float64))


def run(inputs: CausalInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> dict[str, Any]:
    """Write `causal.csv` (a row per place and condition) and `causal.json` (verdicts, how draws matched)."""
    activations = open_activations(parents, inputs.layer, inputs.mask, device=runtime.device)
    crosscoder = open_crosscoder(parents, activations).to(runtime.device).requires_grad_(requires_grad=False)
    table = read_table(parents["scale"] / "latents.parquet", kind="latents")
    documents = spread(activations.token_set.n_documents, inputs.n_documents)
    chosen = torch.tensor(exclusive_latents(table, "tuned"), dtype=torch.int64)
    if len(chosen) == 0:
        return _nothing(draft, 0, "No latent is exclusive to the tuned model, so there is nothing to patch.")
    draws = draw_sets(inputs, activations, crosscoder, chosen=chosen, documents=documents)
    if draws is None:
        silent = "No exclusive latent fires in these documents: nothing to patch; set n_documents higher."
        return _nothing(draft, len(chosen), silent)
    lists = [chosen, *draws.latents, torch.arange(crosscoder.n_latents)]
    members = sets_of(lists, n_latents=crosscoder.n_latents)
    tuned = load_causal(
        inputs.tuned,
        resolve(inputs.tuned, parents.get("organism")),
        layer=inputs.layer,
        device=runtime.device,
    )
    sums = Documents()
    for document in track(documents.tolist(), description="causal", enabled=runtime.progress):
        kl, places = _one_document(inputs, activations, crosscoder, document, tuned=tuned, members=members)
        sums.add(kl, places)
    rows, found = evaluate(sums, inputs)
    rows.to_csv(draft / "causal.csv", index=False)
    record = {
        "version": 1,
        "n_documents": len(documents),
        "n_exclusive": len(chosen),
        **_matching(draws),
        "places": found,
    }
    write_json(finite(record), draft / "causal.json")
    return {"n_exclusive": len(chosen), **{f"beaten_{i}": v["beaten"] for i, v in enumerate(found.values())}}


def _nothing(draft: Path, n_exclusive: int, sentence: str) -> dict[str, Any]:
    record = {"n_exclusive": n_exclusive, "sentence": sentence}
    write_json({"version": 1, **record, "places": {}}, draft / "causal.json")
    return record


def spread(n: int, wanted: int) -> Tensor:
    """`wanted` of n document numbers, in order, drawn by a hash; all of them where there are fewer.

    Corpora alternate (web, chat, web, chat, ...): even steps could take one source alone.
    """
    return mix(torch.arange(n)).argsort()[:wanted].sort().values


def document_rows(activations: PairedActivations, document: int) -> Tensor:
    """All rows of one document, masked ones too."""
    start, stop = activations.token_set.offsets[document : document + 2].tolist()
    return torch.arange(start, stop)


def patched_code(
    crosscoder: Crosscoder, activations: PairedActivations, rows: Tensor
) -> tuple[Tensor, SparseCode]:
    """Activations of one document, and its code at the tokens that the mask keeps (elsewhere empty)."""
    x = activations.read(rows).x.to(crosscoder.decoder.device)
    code = active_code(crosscoder, crosscoder.normaliser.normalise(x))
    kept = activations.kept[rows].to(code.token.device)[code.token]
    return x, SparseCode(code.token[kept], code.latent[kept], code.value[kept], code.n_tokens, code.n_latents)


def draw_sets(
    inputs: CausalInputs,
    activations: PairedActivations,
    crosscoder: Crosscoder,
    *,
    chosen: Tensor,
    documents: Tensor,
) -> MatchedSets | None:
    """Random sets matched on the density and the energy (sum of v^2) that latents have in these documents.

    None where no chosen latent fires in them.
    """
    n = torch.zeros(crosscoder.n_latents, dtype=torch.float64)
    energy, norm = torch.zeros_like(n), code_norm(crosscoder.decoder, crosscoder.settings.code_norm)
    for document in documents.tolist():
        _, code = patched_code(crosscoder, activations, document_rows(activations, document))
        latent, scaled = code.latent.cpu(), (code.value * norm[code.latent]).double().cpu()
        n += torch.bincount(latent, minlength=crosscoder.n_latents)
        energy.index_add_(0, latent, scaled.square())
    others = n > 0
    if not bool(others[chosen].any()):
        return None
    others[chosen] = False
    return matched_sets(
        chosen,
        others.nonzero().flatten(),
        density=n,
        energy=energy,
        n_draws=inputs.n_draws,
        generator=torch.Generator().manual_seed(inputs.seed),
        tolerance=TOLERANCE,
    )


def _one_document(
    inputs: CausalInputs,
    activations: PairedActivations,
    crosscoder: Crosscoder,
    document: int,
    *,
    tuned: CausalModel,
    members: Tensor,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """KL to the tuned model [condition, token]: base, exclusive, draws, all latents, the tuned states."""
    rows = document_rows(activations, document)
    x, code = patched_code(crosscoder, activations, rows)
    added = patches(code, difference_directions(crosscoder), members.to(x.device))
    states = torch.cat([x[None, :, 0], x[None, :, 0] + added, x[None, :, 1]])
    ids = activations.token_set.ids[rows]
    target = tuned.logits(ids, states[-1:], layer=inputs.layer)[0]
    parts = [
        divergence(target, tuned.logits(ids, part, layer=inputs.layer))
        for part in states.split(inputs.states_at_a_time)
    ]
    kept = activations.kept[rows].nonzero().flatten()
    answers = answer_places(activations.token_set.kind[rows], first=inputs.first)
    return torch.cat(parts).cpu(), (kept, answers)


def evaluate(sums: Documents, inputs: CausalInputs) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table of all conditions, and per place how the exclusive set stands against the random ones."""
    import pandas as pd

    generator = torch.Generator().manual_seed(inputs.seed + 1)
    totals, counts = torch.stack(sums.sums, dim=2), torch.stack(sums.counts, dim=1)
    names = ["base", "exclusive", *(f"random_{i}" for i in range(inputs.n_draws)), "all", "tuned"]
    rows, found = [], {}
    for place, where in enumerate(WHERE):
        known = counts[place] > 0
        if not bool(known.any()):
            found[where] = {"n_documents": 0, "beaten": None, "n_draws": inputs.n_draws}
            continue
        figures, resampled = gap_closed(
            totals[place][:, known], counts[place][known], draws=inputs.resamples, generator=generator
        )
        columns = ("kl", "kl_low", "kl_high", "closed", "closed_low", "closed_high")
        for name, values in zip(names, figures.tolist(), strict=True):
            rows.append({"where": where, "condition": name, **dict(zip(columns, values, strict=True))})
        found[where] = against_draws(figures[:, 3], resampled, n_draws=inputs.n_draws)
        found[where] |= {"n_documents": int(known.sum()), "n_tokens": int(counts[place].sum())}
    return pd.DataFrame(rows), found


def against_draws(closed: Tensor, resampled: Tensor, *, n_draws: int) -> dict[str, Any]:
    """How many random sets the exclusive one closes more than, and the margin over their mean (95 %)."""
    draws = slice(2, 2 + n_draws)
    margin = resampled[:, 1] - resampled[:, draws].mean(dim=1)
    low, high = margin.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    beaten = int((closed[1] > closed[draws]).sum())
    return {
        "beaten": beaten,
        "n_draws": n_draws,
        "p_value": (1 + n_draws - beaten) / (1 + n_draws),
        "closed_exclusive": float(closed[1]),
        "closed_random_mean": float(closed[draws].mean()),
        "closed_random_most": float(closed[draws].max()),
        "closed_all": float(closed[-2]),
        "margin": float(closed[1] - closed[draws].mean()),
        "margin_low": low,
        "margin_high": high,
    }


def _matching(draws: MatchedSets) -> dict[str, Any]:
    return {
        "n_draws": len(draws.latents),
        "draws_within_tolerance": int(draws.within(TOLERANCE).sum()),
        "tolerance": TOLERANCE,
        "latents_alike": float(draws.alike.mean()),
        "density_ratio": [float(draws.density_ratio.min()), float(draws.density_ratio.max())],
        "energy_ratio": [float(draws.energy_ratio.min()), float(draws.energy_ratio.max())],
    }


STAGE = Stage(
    "causal",
    version=VERSION,
    run=run,
    reads=("tokens", "harvest", "train", "scale", "organism", "blend"),
    writes="how far exclusive latents carry the base towards the tuned model",
    resources=needs(gpus=1, cpus=8, memory_gb=96, hours=8),
)
