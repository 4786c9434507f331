"""Old module names still import after a module has moved: users' conf folders and notebooks name them.

The store's keys do not depend on it: `Settings.identity` is tagged with the class name, not with the module.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

MOVED = {
    "action_settings": "command_settings",
    "annotation.api.batch_results": "annotation.api.submissions",
    "annotation.api.one_by_one": "annotation.api.client",
    "annotation.at_the_peak": "annotation.text_features",
    "annotation.base": "annotation.settings",
    "annotation.batch": "annotation.api.batch",
    "annotation.blinding": "annotation.subjects",
    "annotation.client": "annotation.api.client",
    "annotation.judging": "studies.behaviour.judge",
    "annotation.ledger": "annotation.api.ledger",
    "annotation.live": "annotation.api.client",
    "annotation.messages": "annotation.api.messages",
    "annotation.own": "annotation.settings",
    "annotation.prices": "annotation.api.prices",
    "annotation.requests": "annotation.api.requests",
    "annotation.rounds": "annotation.api.rounds",
    "annotation.signals": "annotation.text_features",
    "annotation.submissions": "annotation.api.submissions",
    "annotation.tokens_to_words": "annotation.text_features",
    "annotation.variants": "annotation.annotators",
    "annotation.votes": "annotation.results",
    "annotation.words": "annotation.text_features",
    "behaviour": "studies.behaviour",
    "behaviour.dose_response": "studies.steering.targets",
    "behaviour.prompts": "studies.behaviour.prompts",
    "behaviour.proportions": "statistics.proportions",
    "behaviour.rates": "statistics.proportions",
    "behaviour.rules": "studies.behaviour.prompts",
    "behaviour.targets": "studies.steering.targets",
    "core.code_histogram": "core.example_reservoirs",
    "core.fit": "core.explained_variance",
    "core.many_models": "studies.several.step",
    "core.matched_sets": "studies.causal.patching",
    "core.model_table": "studies.several.step",
    "core.patching": "studies.causal.patching",
    "core.peaks": "core.example_reservoirs",
    "core.selected": "core.documented_latents",
    "core.selection": "core.exclusive_call",
    "core.sparse.selection": "core.sparse.batch_topk",
    "data.answers": "studies.causal.patching",
    "data.harvest_checks": "data.harvest.checks",
    "data.harvest_files": "data.harvest.write",
    "data.harvest_job": "data.harvest.job",
    "data.harvest_run": "data.harvest.run",
    "data.harvested": "data.harvest.read",
    "data.harvester": "data.harvest.forward",
    "data.live": "data.harvest.on_the_fly",
    "data.piece_files": "data.harvest.stretches",
    "data.self_pair": "studies.self_diff.step",
    "data.shards": "data.paired_activations",
    "data.statistics": "data.moments",
    "dispatch.track": "dispatch.loggers",
    "io.resources": "command_settings",
    "io.tracking": "command_settings",
    "models.reach": "models.hub",
    "organisms.corpus": "organisms.documents",
    "organisms.labels": "organisms.documents",
    "organisms.planted": "studies.planted.world",
    "organisms.planted_score": "studies.planted.score",
    "organisms.planted_source": "studies.planted.step",
    "organisms.rates": "organisms.models",
    "organisms.simpo": "organisms.phases",
    "organisms.tokenizer": "organisms.models",
    "organisms.toy_rates": "organisms.models",
    "organisms.triple": "organisms.phases",
    "organisms.vocabulary": "organisms.language",
    "organisms.words": "organisms.language",
    "report.words": "report.formatting",
    "stages.causal": "studies.causal.step",
    "stages.generate": "studies.behaviour.answers",
    "stages.judge": "studies.behaviour.judge",
    "stages.planted": "studies.planted.step",
    "stages.self_diff": "studies.self_diff.step",
    "stages.several": "studies.several.step",
    "stages.steer": "studies.steering.step",
    "studies.answer_rates": "studies.behaviour.answers",
    "studies.behaviour.answer_rates": "studies.behaviour.answers",
    "studies.behaviour.generate": "studies.behaviour.answers",
    "studies.behaviour.judged": "studies.behaviour.judge",
    "studies.behaviour.rules": "studies.behaviour.prompts",
    "studies.causal.matched_sets": "studies.causal.patching",
    "studies.counts": "studies.shared",
    "studies.judged": "studies.behaviour.judge",
    "studies.pairs": "studies.shared",
    "studies.planted.source": "studies.planted.step",
    "studies.published": "studies.paper",
    "studies.rates": "studies.behaviour.answers",
    "studies.self_diff.self_pair": "studies.self_diff.step",
    "studies.several.many_models": "studies.several.step",
    "studies.spread": "studies.shared",
    "studies.steered_pair": "studies.steering.steered_pair",
    "studies.steering.dose_response": "studies.steering.targets",
    "taxonomy.agreement": "statistics.agreement",
    "taxonomy.deltas": "statistics.deltas",
    "taxonomy.extend": "taxonomy.scheme",
    "taxonomy.human_check": "statistics.agreement",
    "taxonomy.intervals": "statistics.intervals",
    "taxonomy.multiverse": "statistics.multiverse",
    "taxonomy.pooling": "statistics.pooling",
    "taxonomy.power": "statistics.significance",
    "taxonomy.recovery": "statistics.recovery",
    "taxonomy.refusals": "statistics.verdict",
    "taxonomy.seed_null": "statistics.seed_null",
    "taxonomy.sides": "statistics.deltas",
    "taxonomy.significance": "statistics.significance",
    "taxonomy.verdict": "statistics.verdict",
    "training.fit": "training.run",
    "training.held_out": "training.evaluation",
    "training.random_states": "training.resume",
    "training.schedules": "training.optimizers",
}
"""Old name -> new name, both below `crossdiff.`."""


class _Moved(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Asked first, for old names only: the module of the new name serves under the old one too.

    First, because a moved package lends its folder to its old name, where a second copy would be found.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A spec for old names of `MOVED`, None for all others."""
        known = fullname.removeprefix("crossdiff.") in MOVED
        return importlib.machinery.ModuleSpec(fullname, self) if known else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """The module itself, not a copy: `isinstance` and `is` agree whichever name was imported."""
        module = importlib.import_module(f"crossdiff.{MOVED[spec.name.removeprefix('crossdiff.')]}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run: it ran under its new name, whose spec importlib has just overwritten."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """Make old names importable; called once, by `import crossdiff`."""
    sys.meta_path.insert(0, _Moved())
