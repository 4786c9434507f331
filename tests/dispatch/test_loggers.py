"""Loggers: what they leave, read back, and that a broken one costs a line of notice."""

import csv
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fake_plan import chain
from wandb_files import read_runs

from crossdiff.command_settings import CsvLogger, NoLogger, WandbLogger
from crossdiff.dispatch.local import Outcome
from crossdiff.dispatch.loggers import WandbTracker, _reason, tracker, wandb_mode, wandb_task
from crossdiff.dispatch.wandb_run import tables
from crossdiff.pipeline.steps import Step
from crossdiff.settings import Runtime
from crossdiff.stages import report
from crossdiff.training.metrics import Metrics
from tests import report_artifacts

CURVES = Metrics(Path("metrics.csv"), validate=lambda _: None, names=["base", "tuned"]).columns


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No login, no mode and no W&B configuration of whoever runs the tests."""
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb_data"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb_config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "wandb_cache"))


def finished_train(store: Path) -> Outcome:
    step = chain("pt_it", layer=1)[3]
    folder = step.folder(store)
    folder.mkdir(parents=True)
    first = {name: f"{number + 0.5}" for number, name in enumerate(CURVES)}
    rows = [first | {"step": "10", "val_l0": ""}, first | {"step": "20", "loss": "1.25"}]
    with (folder / "metrics.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, CURVES)
        writer.writeheader()
        writer.writerows(rows)
    return Outcome(step, "done", 3.0, {"fve_base": 0.9, "kept": {"n": 4}, "missing": float("nan")})


@pytest.mark.timeout(180)
def test_one_process_writes_one_ended_run_per_step_that_holds_everything(
    tmp_path: Path, fakes: None, capfd: pytest.CaptureFixture[str]
) -> None:
    tokens = Step("tokens", "toy", chain("pt_it", layer=1)[0].inputs)
    tokens.folder(tmp_path).mkdir(parents=True)
    with tracker(WandbLogger(project="diffs", tags=("toy",)), group="it_vs_simpo") as log:
        log.step_finished(finished_train(tmp_path), tmp_path)
        log.step_finished(Outcome(tokens, "done", 1.0, {"n_tokens": 7}), tmp_path)
    told = capfd.readouterr().err
    assert told.count("W&B: ") == 1
    assert "no login found" in told
    runs = read_runs(tmp_path, n=2)
    train = runs["train pt_it"]
    assert (train["project"], train["group"], train["job_type"], train["tags"]) == (
        "diffs", "it_vs_simpo", "train", ["toy"],
    )  # fmt: skip
    assert train["id"] == finished_key("train")
    assert train["config"]["inputs"]["text"] == "train pt_it 1"
    assert train["config"]["units"]["train/tokens_per_s"] == "tokens/s"
    assert train["config"]["parents"]["tokens"].startswith("tokens-")
    with (finished_folder(tmp_path, "train") / "metrics.csv").open() as handle:
        written = [
            {f"train/{name}": float(cell) for name, cell in row.items() if cell}
            for row in csv.DictReader(handle)
        ]
    curves = [row for row in train["history"] if "train/loss" in row]
    assert [row["trainer/global_step"] for row in curves] == [10, 20]
    found = [{name: row[name] for name in row if name.startswith("train/")} for row in curves]
    assert found == written
    assert "train/val_l0" not in found[0]
    assert len(found[1]) == len(CURVES)
    assert (train["summary"]["fve_base"], train["summary"]["kept.n"]) == (0.9, 4)
    assert "missing" not in train["summary"]
    (artifact,) = [entry for entry in train["artifacts"] if entry["type"] == "train"]
    assert artifact["entries"] == [(finished_folder(tmp_path, "train") / "metrics.csv").as_uri()]
    assert set(json.loads(artifact["metadata"])["parents"]) == {"tokens", "harvest_pt", "harvest_it"}
    assert runs["tokens toy"]["summary"]["n_tokens"] == 7
    assert [run["exit"] for run in runs.values()] == [0, 0]


@pytest.mark.timeout(180)
def test_a_report_is_recorded_with_figures_tables_and_page(tmp_path: Path, fakes: None) -> None:
    store = report_artifacts.build(tmp_path / "store")
    inputs = report.ReportInputs(title="Toy", pairs=store.pairs, reference="pt_it", treatment="pt_simpo")
    page = tmp_path / "page"
    page.mkdir()
    report.run(inputs, store.parents, page, Runtime())
    task = wandb_task(finished_train(tmp_path), tmp_path, WandbLogger(), group="g", mode="offline")
    task |= {
        "init": task["init"] | {"name": "report"},
        "step": {"stage": "report", "label": "Toy", "key": "abc"},
        "inputs": inputs.model_dump(mode="json"),
        "parents": {role: {"name": f"{role}-1", "folder": str(at)} for role, at in store.parents.items()},
        "folder": str(page),
    }
    command = [sys.executable, "-m", "crossdiff.dispatch.wandb_run"]
    subprocess.run(command, input=json.dumps(task), text=True, check=True, timeout=120)
    run = read_runs(tmp_path, n=1)["report"]
    logged = {name.partition(".")[0] for row in run["history"] for name in row}
    assert {"figures/changes", "tables/deltas"} <= logged
    drawn = {name for name in logged if name.startswith("figures/")}
    assert len(drawn) > 5
    assert {path.name.split("_")[0] for path in media(tmp_path, "plotly/figures")} == {
        name.removeprefix("figures/").split("_")[0] for name in drawn
    }
    (table,) = media(tmp_path, "table/tables")
    content = json.loads(table.read_text())
    assert content["columns"][:3] == ["level", "name", "parent"]
    assert len(content["data"]) == 12
    (html,) = [artifact for artifact in run["artifacts"] if artifact["type"] == "page"]
    assert len(html["entries"]) == 1


def test_a_latent_table_is_recorded_whole_with_its_gaps(tmp_path: Path) -> None:
    store = report_artifacts.build(tmp_path / "store")
    (table,) = tables(store.parents["scale_pt_it"]).values()
    assert len(table.data) == 600
    assert "beta_error_tuned" in table.columns


def media(folder: Path, kind: str) -> list[Path]:
    """Files that the offline run holds beside its records."""
    return sorted(folder.glob(f"wandb/offline-run-*/files/media/{kind}/*.json"))


def finished_key(stage: str) -> str:
    return next(step.key for step in chain("pt_it", layer=1) if step.stage == stage)


def finished_folder(store: Path, stage: str) -> Path:
    return store / stage / finished_key(stage)


@pytest.mark.parametrize(
    ("wandb", "notice"),
    [
        ("raise ImportError('no wandb here')", "ImportError: no wandb here"),
        ("import time; time.sleep(60)", "no answer within 2 s"),
    ],
)
def test_a_broken_wandb_costs_one_line(
    tmp_path: Path,
    fakes: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    wandb: str,
    notice: str,
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "wandb.py").write_text(wandb)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    started = time.monotonic()
    seconds = 2 if "sleep" in wandb else 60
    with tracker(WandbLogger(timeout_seconds=seconds), group="g") as log:
        log.step_finished(finished_train(tmp_path), tmp_path)
        assert time.monotonic() - started < 2
    told = capfd.readouterr().err.strip()
    assert told == f"W&B: train pt_it was not recorded ({notice}); the run is not affected"


def test_the_reason_is_the_exception_and_not_what_telemetry_says_after_it() -> None:
    lines = [
        "Traceback (most recent call last):",
        "wandb.errors.CommError: no answer",
        "Failed to export logs",
    ]
    assert _reason(lines) == "wandb.errors.CommError: no answer"
    assert _reason(["killed", ""]) == "killed"
    assert _reason([]) is None


class Refusal(BaseHTTPRequestHandler):
    """A W&B that takes no key."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b'{"errors":[{"message":"invalid API key"}]}'
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.mark.timeout(120)
def test_with_an_expired_login_the_step_is_recorded_offline(
    tmp_path: Path, fakes: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_SERVICE", "3-1-unix-/nowhere")  # as this process' own use of W&B leaves it
    with tracker(WandbLogger(), group="g") as log:
        log.step_finished(finished_train(tmp_path), tmp_path)
    server.shutdown()
    told = capfd.readouterr().err.strip()
    assert told.startswith("W&B: train pt_it is recorded offline (")
    assert "401" in told
    assert "upload later with: wandb sync" in told
    assert read_runs(tmp_path, n=1)["train pt_it"]["summary"]["fve_base"] == 0.9


def test_a_step_that_was_found_finished_is_not_recorded_again_and_that_is_said(
    tmp_path: Path, fakes: None, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = finished_train(tmp_path)
    log = WandbTracker(WandbLogger(), "g")
    with log:
        log.step_finished(Outcome(outcome.step, "reused", 3.0, {}), tmp_path)
        assert log.running == []
    assert "W&B: nothing was recorded: all 1 steps were finished before" in capfd.readouterr().err


def test_without_a_login_recording_goes_offline_and_says_how_to_upload() -> None:
    mode, notice = wandb_mode(WandbLogger())
    assert mode == "offline"
    assert notice
    assert "wandb sync" in notice


def test_a_login_or_a_mode_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert wandb_mode(WandbLogger(mode="offline")) == ("offline", None)
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    assert wandb_mode(WandbLogger()) == ("online", None)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode(WandbLogger()) == ("disabled", None)


def test_csv_lays_steps_and_curves_beside_the_report(tmp_path: Path, fakes: None) -> None:
    outcome = finished_train(tmp_path)
    results = tmp_path / "results"
    results.mkdir()
    rows = [{"name": outcome.step.name, "key": outcome.step.key, "state": "done", "seconds": 3.0}]
    with tracker(CsvLogger(), group="g") as log:
        log.published(results, rows, tmp_path)
    with (results / "steps.csv").open() as handle:
        assert list(csv.DictReader(handle)) == [
            {"name": "train pt_it", "key": outcome.step.key, "state": "done", "seconds": "3.0"}
        ]
    assert (results / "metrics.pt_it.csv").read_text().startswith("step,tokens,loss")


def test_none_leaves_nothing(tmp_path: Path, fakes: None) -> None:
    with tracker(NoLogger(), group="g") as log:
        log.published(tmp_path, [], tmp_path)
    assert list(tmp_path.iterdir()) == []
