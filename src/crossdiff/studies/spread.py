"""How a pair's latents spread over delta_norm: similar models leave the outer bins empty, the middle full."""

from __future__ import annotations

from typing import Any

from crossdiff.core.diagnostics import beyond_outer, middle_share, signature
from crossdiff.report.findings import Chart
from crossdiff.report.frames import alive as alive_latents
from crossdiff.report.frames import values
from crossdiff.report.products import RunProducts


def spread(run: RunProducts, pair: str) -> dict[str, Any]:
    """Alive latents below 0.1 and above 0.9, their share in 0.3 to 0.6, and the signature's words.

    The signature is the run's own, which knows how long its crosscoder was trained: norms alone would call
    a pair too similar whose training was too short.
    """
    import torch

    alive = torch.tensor(values(alive_latents(run.latents(pair)), "delta_norm"))
    found = run.figures(pair).get("signature") or signature(alive)
    below, above = beyond_outer(alive)
    return {
        "n_alive": len(alive),
        "n_below_0.1": below,
        "n_above_0.9": above,
        "share_0.3_0.6": middle_share(alive),
        "verdict": found["verdict"],
        "sentence": found["sentence"],
    }


def norm_chart(run: RunProducts, pair: str) -> Chart:
    """The delta_norm histogram of one pair."""
    from crossdiff.report import figures

    return Chart(
        f"norms-{pair}",
        f"{pair}: delta_norm of all alive latents",
        "0: only the base model decodes the latent, 1: only the tuned one, one half: both alike.",
        figures.delta_norm(run.latents(pair)),
        wide=False,
    )


def scatter_chart(run: RunProducts, pair: str, *, nu_error: float, nu_reconstruction: float) -> Chart:
    """nu_error against nu_reconstruction of one pair."""
    from crossdiff.report import figures

    return Chart(
        f"nu-{pair}",
        f"{pair}: what the base model holds of every latent",
        "Exclusive latents as points inside the dashed box; the crowd of all others as a density.",
        figures.nu_scatter(run.latents(pair), nu_error=nu_error, nu_reconstruction=nu_reconstruction),
        wide=False,
    )
