"""Two pairs against each other: which, and how many crosscoders each gets."""

from __future__ import annotations

from pydantic import Field, model_validator

from crossdiff.models.pair import ModelPair
from crossdiff.settings import Settings


class Comparison(Settings):
    """Two pairs that share their base; the reference pair's tuned model gives the chat template."""

    reference: ModelPair
    treatment: ModelPair
    seed_null: str | None = None
    """Results of a finished `experiment=seed_null`: changes are also held against those of another seed."""
    n_seeds: int = Field(default=1, ge=1)
    """Crosscoders per pair, of this and the following seeds; from 2 on errors are learnt over seeds."""
    without: tuple[str, ...] = ()
    """Members (`<pair>_seed<k>`) that are left out, such as one whose training failed."""

    @model_validator(mode="after")
    def _null_fits(self) -> Comparison:
        if self.seed_null is not None and self.n_seeds > 1:
            raise ValueError(
                "comparison.seed_null holds changes between single crosscoders, which say nothing about "
                f"comparison.n_seeds={self.n_seeds} of them, whose spread over seeds is measured; leave one "
                "of the two out"
            )
        return self

    def members(self, first_seed: int) -> dict[str, tuple[ModelPair, ...]]:
        """Pair -> the pair once per crosscoder: itself, then `<pair>_seed<k>` for every further seed k.

        `first_seed` is that of a pair without a seed of its own.
        """
        everyone = {pair.name: self._seeds(pair, first_seed) for pair in (self.reference, self.treatment)}
        names = [member.name for members in everyone.values() for member in members]
        if len(everyone) == 2 and len(set(names)) < len(names):
            raise ValueError(
                f"two crosscoders would have one name among {', '.join(names)}; rename a pair "
                "(comparison.reference.name=...)"
            )
        if unknown := sorted(set(self.without) - set(names)):
            raise ValueError(
                f"comparison.without names {unknown[0]}, which is no crosscoder here; those are "
                f"{', '.join(names)}"
            )
        kept = {
            pair: tuple(member for member in members if member.name not in self.without)
            for pair, members in everyone.items()
        }
        for pair, members in kept.items():
            if not members:
                raise ValueError(
                    f"comparison.without leaves {pair} no crosscoder; name fewer of them, or raise "
                    "comparison.n_seeds"
                )
        return kept

    def _seeds(self, pair: ModelPair, first_seed: int) -> tuple[ModelPair, ...]:
        first = first_seed if pair.seed is None else pair.seed
        further = (
            pair.model_copy(update={"name": f"{pair.name}_seed{seed}", "seed": seed})
            for seed in range(first + 1, first + self.n_seeds)
        )
        return (pair, *further)
