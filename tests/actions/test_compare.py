"""action=compare as a user types it."""

import gzip
import json
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from crossdiff.actions.compare import keys, save_board
from crossdiff.command_settings import WandbLogger
from crossdiff.report.runs import Run
from tests.report_runs import write_run
from tests.test_command_line import crossdiff


def test_two_results_folders_give_one_page_without_naming_a_model(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / f"toy_seed{seed}", settings={"seed": seed})
    page = tmp_path / "runs.html"
    done = crossdiff("action=compare", f"compare.runs={tmp_path}/toy_seed*", f"compare.page={page}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"comparison of 2 runs: {page}"
    assert "seed 1" in page.read_text()


def test_nothing_to_compare_is_one_message(tmp_path: Path) -> None:
    done = crossdiff("action=compare", f"compare.runs={tmp_path}/*")
    assert done.returncode == 2
    assert "a comparison needs two" in done.stderr
    assert "Traceback" not in done.stderr


LOGGER = WandbLogger(project="diffs", entity="lab")
RUNS = [
    Run(
        name=f"seed{seed}", folder=Path(f"results/seed{seed}"), settings={"seed": seed}, pairs={},
        compared=("pt_it", "pt_simpo"),
        steps=(
            ("harvest pt", "h0"), ("train pt_it", f"t{seed}"), ("scale pt_it", f"s{seed}"),
            ("compare x", "c0"),
        ),
    )
    for seed in (0, 1)
]  # fmt: skip


class Endpoint(BaseHTTPRequestHandler):
    """The queries that saving a view takes, answered; what was saved is kept in `saved`."""

    saved: list[dict[str, Any]]

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        plain = gzip.decompress(raw) if self.headers.get("Content-Encoding") == "gzip" else raw
        asked = json.loads(plain) if self.path.startswith("/graphql") else {"query": ""}
        body = json.dumps({"data": self.answer(asked["query"], asked.get("variables") or {})}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        if "upsertView" in query:
            given = given.get("input") or given
            self.saved.append(given)
            names = ("type", "name", "displayName", "description", "spec")
            view = {name: given.get(name) for name in names} | {"id": "dmlldzox", "slug": None}
            view |= {"createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"}
            project = {"id": "p", "name": "diffs", "entityName": "lab"}
            return {"upsertView": {"view": view | {"project": project}, "inserted": True}}
        if "GetProjects" in query or "models(" in query:
            node = {"__typename": "Project", "id": "p", "name": "diffs", "entityName": "lab"}
            node |= {"createdAt": "2026-01-01T00:00:00Z", "isBenchmark": False, "user": None}
            page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
            return {"models": {"pageInfo": page, "edges": [{"node": node}]}}
        if re.search(r"viewer", query, re.IGNORECASE):
            teams = {"edges": [{"node": {"name": "lab"}}]}
            viewer = {"id": "u", "entity": "lab", "username": "me", "email": "me@localhost", "admin": False}
            return {"viewer": viewer | {"flags": "{}", "teams": teams, "apiKeys": {"edges": []}}}
        return {"project": {"id": "p", "internalId": "cDox"}, "serverInfo": {"features": []}}


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[dict[str, Any]]]:
    """What a W&B on this machine was asked to save."""
    pytest.importorskip("wandb_workspaces", reason="pip install 'crossdiff[workspaces]'")
    saved: list[dict[str, Any]] = []
    handler = type("Handler", (Endpoint,), {"saved": saved})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    yield saved
    server.shutdown()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["report", "workspace"])
def test_a_board_about_exactly_these_runs_is_saved(kind: Any, endpoint: list[dict[str, Any]]) -> None:
    url = save_board(RUNS, LOGGER, kind=kind, title="two seeds")
    assert "/lab/diffs" in url
    (saved,) = endpoint
    assert (saved["entityName"], saved["projectName"]) == ("lab", "diffs")
    assert saved["displayName"] == "two seeds"
    spec = saved["spec"]
    for part in ("t0", "t1", "s1", "fve_tuned", "n_exclusive_tuned", "layer", "train/l0"):
        assert part in spec, part
    assert '"h0"' not in spec


def test_ids_are_the_keys_of_a_stage_once_each() -> None:
    assert keys(RUNS, "train") == ["t0", "t1"]
    assert keys(RUNS, "compare") == ["c0"]


def test_without_an_account_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("wandb_workspaces", reason="pip install 'crossdiff[workspaces]'")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"needs W&B online, and it is offline.*wandb login"):
        save_board(RUNS, LOGGER, kind="report", title="x")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(ValueError, match=r"pip install 'crossdiff\[workspaces\]'"):
        save_board(RUNS, LOGGER, kind="report", title="x")
