"""metrics.csv: one row per logged step, also correct after a stop in the middle of a validation."""

from __future__ import annotations

import csv
import io
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from crossdiff.core.exclusive_call import KINDS
from crossdiff.core.shard import mean_over_shards
from crossdiff.training.evaluation import HeldOut, kind_shares
from crossdiff.training.module import CrosscoderModule


class Metrics(pl.Callback):
    """Writes metrics.csv, one row per `log_every` steps, and hands rows to the trainer's loggers.

    A row with held-out figures is `due` until `complete` has validated; `validate` gets a function that says
    whether to break off, and then returns None. A checkpoint contains the row that is due. A resumed run
    drops the rows after the step it continues from, and those that a crash left unreadable. Where figures
    are sums over ranks that share a dictionary all of them have these rows, and one `writes`.
    """

    def __init__(
        self,
        path: Path,
        *,
        validate: Callable[[Callable[[], bool]], HeldOut | None],
        names: list[str],
        delta: bool = False,
        writes: bool = True,
    ) -> None:
        self.path, self.validate, self.names, self.writes = path, validate, names, writes
        self.due: dict[str, Any] | None = None
        self.columns = [
            "step", "tokens", "loss", "reconstruction", "auxiliary", "sparsity", "revival",
            *(["delta"] if delta else []),
            *(f"fve_{name}" for name in names), "l0", "dead_share", "threshold", "k", "learning_rate",
            "gradient_norm", "tokens_per_s", *(f"val_fve_{name}" for name in names), "val_l0",
            *(f"val_fve_batch_{name}" for name in names), "val_l0_batch", "val_never_fired",
            *(f"decoder_norm_{name}" for name in names),
            *(f"share_{kind}" for kind in KINDS if kind != "dead"),
        ]  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """The row that is due."""
        return {"due": self.due}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the row that was due; it is written again."""
        self.due = state_dict["due"]
        if self.due is not None:
            self._keep_up_to(self.due["step"] - 1)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the file with the rows that still hold."""
        self._keep_up_to(trainer.global_step)
        self.since = (time.perf_counter(), trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: CrosscoderModule, *_: Any) -> None:  # pyright: ignore
        """Write a row when it is time, or hold it as due where it needs a validation."""
        step, settings = trainer.global_step, pl_module.training_settings
        validates = step % settings.validate_every == 0
        if not validates and step % settings.log_every and step != trainer.max_steps:
            return
        now = time.perf_counter()
        rate = (step - self.since[1]) * settings.batch_size / (now - self.since[0])
        row = {
            "step": step,
            "tokens": step * settings.batch_size,
            **pl_module.figures(),
            "tokens_per_s": rate,
        }
        norms = pl_module.crosscoder.decoder.detach().norm(dim=2).mean(dim=0).tolist()
        norms = mean_over_shards(pl_module.crosscoder, norms)
        row |= {f"decoder_norm_{name}": norm for name, norm in zip(self.names, norms, strict=True)}
        self.since = (now, step)
        if validates:
            self.due = row
        else:
            self._report(trainer, row)

    def complete(
        self,
        trainer: pl.Trainer,
        pl_module: CrosscoderModule,
        *,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Validate and write the row that is due, if any; it stays due if `stopping` comes true."""
        if self.due is None or (measured := self.validate(stopping)) is None:
            return
        row = self.due | self._held_out(measured) | kind_shares(pl_module.crosscoder)
        self.due = None
        self._report(trainer, row)
        self.since = (time.perf_counter(), row["step"])

    def _report(self, trainer: pl.Trainer, row: dict[str, Any]) -> None:
        if not self.writes:
            return
        shown = {name: _shown(value) for name, value in row.items()}
        with self.path.open("a", newline="", encoding="utf-8") as handle:
            csv.DictWriter(handle, self.columns).writerow(shown)
        for logger in trainer.loggers:
            logger.log_metrics({f"train/{name}": v for name, v in row.items() if v == v}, step=row["step"])

    def _held_out(self, measured: HeldOut) -> dict[str, float]:
        return {
            "val_l0": measured.l0,
            "val_l0_batch": measured.l0_batch,
            "val_never_fired": measured.never_fired,
            **{f"val_fve_{name}": v for name, v in zip(self.names, measured.fve, strict=True)},
            **{f"val_fve_batch_{name}": v for name, v in zip(self.names, measured.fve_batch, strict=True)},
        }

    def _keep_up_to(self, step: int) -> None:
        if not self.writes:
            return
        rows = [row for row in _readable_rows(self.path) if int(row["step"]) <= step]
        aside = self.path.with_name(f".{self.path.name}.part")
        with aside.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, self.columns)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(aside, self.path)


def _readable_rows(path: Path) -> list[dict[str, str]]:
    """Rows that are there to their last column; a crash may leave part of one, or zero bytes."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as handle:
        whole_lines = handle.read().replace("\0", "").rpartition("\n")[0]
    rows = csv.DictReader(io.StringIO(whole_lines, newline=""))
    whole = [row for row in rows if None not in row and None not in row.values()]
    return [row for row in whole if row.get("step", "").isdecimal()]


def _shown(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "" if math.isnan(value) else f"{value:.7g}"
