import pandas as pd

from crossdiff.organisms.label_check import label_check


def row(latent: int, category: str | None, role: str = "exclusive_tuned", pair: str = "p") -> dict:
    return {"pair": pair, "latent": latent, "role": role, "category": category}


def table(documents: dict[int, str]) -> pd.DataFrame:
    rows = [
        {"latent": latent, "document_id": name, "subset": "explain", "source": "top"}
        for latent, names in documents.items()
        for name in names
    ]
    return pd.DataFrame([*rows, {"latent": 1, "document_id": "z", "subset": "score", "source": "top"}])


def test_labelled_and_right_by_hand() -> None:
    """Latent 1: aab -> right; 2: ab is a tie -> right; 3: bbb said a -> wrong; 4 and 5 have no category."""
    documents = {"a": "x", "b": "y", "z": "y"}
    examples = {"p": table({1: "aab", 2: "ab", 3: "bbb", 4: "aaa", 5: "a", 6: "a"})}
    rows = [row(1, "x"), row(2, "y"), row(3, "x"), row(4, "other"), row(5, None)]
    rows += [row(6, "x", role="exclusive_base"), row(7, "x", role="control_shared")]
    found = label_check(rows, examples, documents)
    assert found["exclusive_tuned"] == found["p"]
    assert found["p"] == {
        "n": 5, "n_labelled": 3, "n_right": 2, "share_labelled": 3 / 5, "share_right": 2 / 3
    }  # fmt: skip
    assert found["exclusive"]["n"] == 6
    assert found["exclusive"]["n_right"] == 3
    assert "drifted" not in found
    again = label_check(
        [*rows, row(1, "x", role="drifted"), row(3, "x", role="drifted")], examples, documents
    )
    assert (again["drifted"]["n"], again["drifted"]["n_right"]) == (2, 1)
    assert (again["control_shared"]["n"], again["control_shared"]["n_right"]) == (1, 0)
    assert again["exclusive"] == found["exclusive"]


def test_without_latents_shares_are_unknown() -> None:
    found = label_check([], {"p": table({})}, {})
    assert found["exclusive"] == {
        "n": 0, "n_labelled": 0, "n_right": 0, "share_labelled": None, "share_right": None
    }  # fmt: skip
