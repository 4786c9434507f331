"""The sentence of the contenders, from chosen numbers."""

from crossdiff.studies.contenders.shown import FIGURES, answer


def test_the_sentence_names_the_best_the_last_and_who_makes_false_calls() -> None:
    def row(f1: float, n: int) -> dict:
        calls = {
            null: {"n_calls": found, "value": 10.0 * found} for null, found in (("same", 0), ("moved", n))
        }
        return {**dict.fromkeys(FIGURES, f1), **calls}

    differs = {**dict.fromkeys(FIGURES, float("nan")), "same": None, "moved": None}
    differs |= {"held_tuned_frequent": 0.75, "sign_right": 1.0}
    said = answer({"l1": row(0.8, 3), "dedicated": row(0.2, 5), "delta": row(1.0, 0), "diff_sae": differs})
    assert "1 % of tokens and more: highest F1 1.000 (delta), lowest 0.200 (dedicated (tied form))." in said
    assert "Where the models are the same, no kind calls a latent exclusive." in said
    assert "weaker, dedicated (tied form) makes most false calls (50 per 1,000); none by delta." in said
    assert said.endswith(
        "diff-SAE makes no call: it holds 75% of the tuned-only directions of 1 % of tokens and more, and "
        "the sign of 100% of what it holds of one model alone is right."
    )
    few = row(0.8, 1)
    few["moved"] = {**few["moved"], "value": 0.04}
    assert "weaker, L1, TopK make most false calls (0.04 per 1,000)." in answer({"l1": few, "topk": few})
    said = answer({"l1": few, "delta": row(1.0, 1), "diff_sae": {**differs, "sign_right": float("nan")}})
    assert "weaker, delta makes most false calls (10 per 1,000); the others make fewer." in said
    assert said.endswith("it holds 75% of the tuned-only directions of 1 % of tokens and more.")
    only_on_toy = {**differs, "held_tuned_frequent": float("nan")}
    assert "makes no call" not in answer({"l1": row(0.8, 3), "diff_sae": only_on_toy})


def test_where_no_kind_calls_a_planted_latent_none_leads() -> None:
    row = {**dict.fromkeys(FIGURES, 0.0), "same": None, "moved": None}
    said = answer({"l1": row, "dedicated": row})
    assert "Latents of 1 % of tokens and more: no kind calls any of them (F1 0 for all)." in said
    assert "highest F1" not in said
