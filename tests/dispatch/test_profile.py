"""Cluster profiles: found by name or path; a key that does not exist is named with the near ones."""

from pathlib import Path

import pytest

from crossdiff.dispatch.profile import FOLDERS, load_profile
from crossdiff.io.resources import Profile


def written(folder: Path, text: str) -> str:
    path = folder / "lab.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("path", sorted(FOLDERS[0].glob("*.yaml")), ids=lambda path: path.stem)
def test_every_profile_in_the_checkout_can_be_read(path: Path) -> None:
    assert load_profile(path.stem) == load_profile(str(path))


def test_no_profile_is_an_empty_one() -> None:
    assert load_profile(None) == Profile()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("partion: gpu", "key partion does not exist; did you mean partition"),
        ("stages: {train: {gpu: 1}}", r"key stages\.train\.gpu does not exist; did you mean gpus"),
        ("stages: {trian: {gpus: 1}}", r"stages\.trian is no stage; .*'train'.* are"),
        ("gpus: many", "gpus='many'"),
        ("hours: -1", "hours=-1: .*greater than 0"),
        ("a: [", "is not YAML"),
        ("- a list", "should be a valid dictionary"),
    ],
)
def test_a_wrong_profile_names_the_key_and_the_rule(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_profile(written(tmp_path, text))


def test_an_unknown_profile_lists_those_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"dispatch.profile=nowhere is no cluster profile; there are example, local"
    ):
        load_profile("nowhere")
