"""A format is recognised by its files; anything else ends in one message."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crossdiff.io.crosscoders.find import find_checkpoint
from crossdiff.stages.import_crosscoder import fingerprint
from tests.hub_server import serving
from tests.published_crosscoders import drawn, write_crosscode, write_neelnanda, write_openmoss


def test_formats_by_their_files(tmp_path: Path) -> None:
    draw = drawn()
    assert find_checkpoint(write_neelnanda(tmp_path / "a", draw)).format == "neelnanda"
    assert find_checkpoint(write_crosscode(tmp_path / "b", draw)).format == "crosscode"
    assert find_checkpoint(write_openmoss(tmp_path / "c", draw)).format == "openmoss"


def test_a_foreign_folder_is_told_with_what_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(ValueError, match=r"pytorch_model\.bin.*Readable: crossdiff .*neelnanda.*OpenMOSS"):
        find_checkpoint(tmp_path)


def test_several_checkpoints_of_one_training_need_a_choice(tmp_path: Path) -> None:
    for number in (0, 1):
        write_neelnanda(tmp_path, drawn(number), number=number)
    with pytest.raises(ValueError, match=r"0\.pt, 1\.pt.*give the file"):
        find_checkpoint(tmp_path)
    assert find_checkpoint(tmp_path / "1.pt").weights == tmp_path / "1.pt"


def test_the_hash_is_that_of_the_files_not_of_the_path(tmp_path: Path) -> None:
    draw = drawn()
    here, there = write_neelnanda(tmp_path / "a", draw), write_neelnanda(tmp_path / "b", draw)
    assert find_checkpoint(here).sha256()["cfg.json"] == find_checkpoint(there).sha256()["cfg.json"]
    torch.save({}, there / "cc_weights.pt")
    assert find_checkpoint(here).sha256() != find_checkpoint(there).sha256()


def test_a_name_that_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("nobody/nothing-at-all", str(tmp_path / "nowhere"), "word"):
        with pytest.raises(ValueError, match="neither a file or folder nor a reachable hub"):
            find_checkpoint(name)


def test_a_config_of_something_else_is_no_crosscoder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma2"}))
    with pytest.raises(ValueError, match="has no crosscoder"):
        find_checkpoint(tmp_path)


FROM_HUB = """
import sys
from crossdiff.io.crosscoders.find import find_checkpoint
from crossdiff.stages.import_crosscoder import fingerprint
for asked in sys.argv[1:]:
    try:
        print(find_checkpoint(asked).format, fingerprint(asked))
    except ValueError as error:
        print(error)
"""


def test_a_hub_id_is_downloaded_by_the_real_client_at_its_revision(tmp_path: Path) -> None:
    """The key is the content: that of a local folder with the same files."""
    for seed, name in enumerate(("main", "v2")):
        write_neelnanda(tmp_path / name, drawn(seed))
        write_neelnanda(tmp_path / name / "blocks.14.hook_resid_pre", drawn(seed + 10))
    ids = ("lab/pair", "lab/pair@v2", "lab/pair/blocks.14.hook_resid_pre@v2", "lab/pair@v3", "lab/other")
    with serving("lab/pair", {name: tmp_path / name for name in ("main", "v2")}) as (endpoint, asked):
        environment = os.environ | {
            "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", FROM_HUB, *ids],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
    lines = done.stdout.splitlines()
    assert len(lines) == len(ids), done.stderr
    folders = (tmp_path / "main", tmp_path / "v2", tmp_path / "v2" / "blocks.14.hook_resid_pre")
    assert lines[:3] == [f"neelnanda {fingerprint(str(folder))}" for folder in folders]
    assert len(set(lines[:3])) == 3
    for line in lines[3:]:
        assert "nor a reachable hub repository" in line
    main = hashlib.sha1(str(tmp_path / "main").encode()).hexdigest()
    assert f"/lab/pair/resolve/{main}/cc_weights.pt" in asked
    assert not any("blocks.14" in path and main in path for path in asked)  # folders below are not loaded
