"""The page's tables out of the step's CSV files."""

from pathlib import Path

from crossdiff.studies.outputs.shown import pair_charts

TOKENS = (
    "token,share_top,share_bottom,share_raised,share_positive_logit,mean_change,share_documents,low,high\n"
)
DOCUMENTS = 'document_id,source,n_tokens,nll_base,nll_tuned,gain,kl\n"NA","null",3,2.0,1.0,1.0,0.5\n'


def test_a_document_called_na_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "tokens.csv").write_text(TOKENS + '"a",0.5,0.5,0.5,0.5,0.1,0.5,0.4,0.6\n')
    (tmp_path / "documents.csv").write_text(DOCUMENTS)
    *_, documents = pair_charts("pair", tmp_path, {"top_k": 3, "topics": []}, {})
    assert "'NA'" in str(documents.table)
    assert "'null'" in str(documents.table)
