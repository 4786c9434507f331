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
    "actions.crosscoder_card": "actions.export",
    "actions.export_annotations": "actions.export",
    "actions.export_checkpoint": "actions.export",
    "actions.export_report": "actions.export",
    "actions.failed_members": "pipeline.plan",
    "actions.neuronpedia": "actions.export",
    "actions.report_parts": "actions.render",
    "actions.train": "actions.run",
    "annotation.api.batch_results": "annotation.api.submissions",
    "annotation.api.one_by_one": "annotation.api.client",
    "annotation.api.prices": "annotation.api.requests",
    "annotation.at_the_peak": "annotation.text_features",
    "annotation.base": "annotation.settings",
    "annotation.batch": "annotation.api.batch",
    "annotation.blinding": "annotation.subjects",
    "annotation.client": "annotation.api.client",
    "annotation.framing": "annotation.results",
    "annotation.judging": "studies.behaviour.judge",
    "annotation.ledger": "annotation.api.ledger",
    "annotation.live": "annotation.api.client",
    "annotation.messages": "annotation.api.messages",
    "annotation.own": "annotation.settings",
    "annotation.prices": "annotation.api.requests",
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
    "behaviour.proportions": "statistics.intervals",
    "behaviour.rates": "statistics.intervals",
    "behaviour.rules": "studies.behaviour.prompts",
    "behaviour.targets": "studies.steering.targets",
    "core.active_products": "core.codes",
    "core.axes": "core.codes",
    "core.code_histogram": "core.codes",
    "core.example_reservoirs": "core.documented_latents",
    "core.fit": "core.explained_variance",
    "core.largest": "core.threshold",
    "core.many_models": "studies.several.step",
    "core.matched_sets": "studies.causal.patching",
    "core.model_table": "studies.several.step",
    "core.objectives": "core.dense",
    "core.pass_sums": "core.streaming",
    "core.patching": "studies.causal.patching",
    "core.peaks": "core.documented_latents",
    "core.selected": "core.documented_latents",
    "core.selection": "core.exclusive_call",
    "core.ratio_intervals": "core.jackknife",
    "core.renormalise": "core.decoder_norms",
    "core.sparse.parts": "core.sparse.kernels",
    "core.sparse.selection": "core.sparse.batch_topk",
    "core.steering": "core.decoder_norms",
    "core.topics": "core.logit_differences",
    "data.answers": "studies.causal.patching",
    "data.direction_logits": "data.example_table",
    "data.harvest.forward": "data.harvest.job",
    "data.harvest.stretches": "data.harvest.read",
    "data.harvest_checks": "data.harvest.checks",
    "data.harvest_files": "data.harvest.write",
    "data.harvest_job": "data.harvest.job",
    "data.harvest_run": "data.harvest.run",
    "data.harvested": "data.harvest.read",
    "data.harvester": "data.harvest.job",
    "data.hub_stream": "data.records",
    "data.layer_rows": "data.paired_batch",
    "data.live": "data.harvest.on_the_fly",
    "data.piece_files": "data.harvest.read",
    "data.row_check": "data.shard_files",
    "data.self_pair": "studies.self_diff.self_pair",
    "data.shards": "data.paired_activations",
    "data.statistics": "data.moments",
    "data.windows": "data.paired_batch",
    "dispatch.profile": "dispatch.sbatch",
    "dispatch.publish": "dispatch.store",
    "dispatch.queue": "dispatch.register",
    "dispatch.shared_jobs": "dispatch.sbatch",
    "dispatch.track": "dispatch.loggers",
    "dispatch.wandb_board": "actions.compare",
    "io.crosscoders.state_files": "io.crosscoders.weights",
    "io.device": "io.environment",
    "io.locks": "io.artifacts",
    "io.resources": "command_settings",
    "io.tracking": "command_settings",
    "models.adapters": "models.checkpoint",
    "models.can_be_asked": "models.config_file",
    "models.causal": "models.generate",
    "models.comparison": "models.pair",
    "models.reach": "models.hub",
    "models.template_source": "models.config_file",
    "models.weight_headers": "models.weight_names",
    "notebook.run_figures": "report.export",
    "notebook.run_pair": "notebook.finished_steps",
    "notebook.saved_models": "notebook.open_model",
    "organisms.corpus": "organisms.documents",
    "organisms.label_check": "statistics.recovery",
    "organisms.labels": "organisms.documents",
    "organisms.planted": "studies.planted.world",
    "organisms.planted_score": "studies.planted.score",
    "organisms.planted_source": "studies.planted.world",
    "organisms.rates": "organisms.models",
    "organisms.simpo": "organisms.phases",
    "organisms.tokenizer": "organisms.models",
    "organisms.toy_rates": "organisms.models",
    "organisms.triple": "organisms.phases",
    "organisms.vocabulary": "organisms.language",
    "organisms.words": "organisms.language",
    "pipeline.imported_steps": "pipeline.activation_steps",
    "pipeline.jobs": "pipeline.steps",
    "pipeline.study": "pipeline.plan",
    "pipeline.table": "pipeline.cost",
    "pipeline.tokenizer_checks": "pipeline.weight_checks",
    "report.changed_categories": "report.first_screen",
    "report.example_line": "report.documents",
    "report.figures.rows": "report.delta_rows",
    "report.figures.runs": "report.figures.curves",
    "report.figures.tiling": "report.figures.heat_maps",
    "report.findings": "report.study_page",
    "report.frames": "io.tables",
    "report.neighbours": "report.explorer",
    "report.products": "report.runs",
    "report.provenance": "io.artifacts",
    "report.set_aside": "report.caveats",
    "report.stability": "report.delta_rows",
    "report.words": "report.formatting",
    "stages.causal": "studies.causal.step",
    "stages.generate": "studies.behaviour.answers",
    "stages.judge": "studies.behaviour.judge",
    "stages.planted": "studies.planted.step",
    "stages.registry": "stages.protocol",
    "stages.self_diff": "studies.self_diff.step",
    "stages.several": "studies.several.step",
    "stages.steer": "studies.steering.step",
    "statistics.multiverse": "statistics.verdict",
    "statistics.proportions": "statistics.intervals",
    "studies.answer_rates": "studies.behaviour.answers",
    "studies.behaviour.answer_rates": "studies.behaviour.answers",
    "studies.behaviour.correlation": "statistics.pooling",
    "studies.behaviour.generate": "studies.behaviour.answers",
    "studies.behaviour.logged_model": "studies.behaviour.binary_scores",
    "studies.behaviour.rules": "studies.behaviour.prompts",
    "studies.causal.matched_sets": "studies.causal.patching",
    "studies.causal.settings": "studies.causal",
    "studies.counts": "studies.shared",
    "studies.judged": "studies.behaviour.judge",
    "studies.outputs.figures": "studies.outputs.step",
    "studies.outputs.settings": "studies.outputs",
    "studies.pairs": "studies.shared",
    "studies.planted.source": "studies.planted.world",
    "studies.published": "studies.paper",
    "studies.rates": "studies.behaviour.answers",
    "studies.several.many_models": "studies.several.step",
    "studies.spread": "studies.shared",
    "studies.steered_pair": "studies.steering.steered_pair",
    "studies.steering.dose_response": "studies.steering.targets",
    "taxonomy.agreement": "statistics.agreement",
    "taxonomy.deltas": "statistics.deltas",
    "taxonomy.extend": "taxonomy.scheme",
    "taxonomy.human_check": "statistics.agreement",
    "taxonomy.intervals": "statistics.intervals",
    "taxonomy.multiverse": "statistics.verdict",
    "taxonomy.pooling": "statistics.pooling",
    "taxonomy.power": "statistics.significance",
    "taxonomy.recovery": "statistics.recovery",
    "taxonomy.refusals": "statistics.verdict",
    "taxonomy.seed_null": "statistics.seed_null",
    "taxonomy.sides": "statistics.deltas",
    "taxonomy.significance": "statistics.significance",
    "taxonomy.verdict": "statistics.verdict",
    "training.devices": "training.nodes",
    "training.fit": "training.run",
    "training.held_out": "training.evaluation",
    "training.initialise": "training.run",
    "training.lent_ranks": "training.launch",
    "training.optimizer": "training.optimise",
    "training.optimizers": "training.optimise",
    "training.random_states": "training.resume",
    "training.scaling_module": "training.scaling_pass",
    "training.schedules": "training.settings",
    "training.shard_checks": "training.settings",
    "training.start": "training.run",
}
"""Old name -> new name, both below `crossdiff.`."""


class _Moved(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Asked first, for old names only: the module of the new name serves under the old one too.

    First, because the folder of a moved package makes a second copy of its modules, and an old folder with
    nothing but `__pycache__`, as `git pull` leaves it, is an empty package to Python.
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
