import pytest
from pydantic import ValidationError

from crossdiff.action_settings import FORMATS, ExportSettings


@pytest.mark.parametrize("what", FORMATS)
def test_the_first_format_is_the_default_and_others_are_refused(what) -> None:
    assert ExportSettings(what=what).chosen_format == FORMATS[what][0]
    stranger = "svg" if what == "checkpoint" else "dictionary_learning"
    with pytest.raises(ValidationError, match=f"choose {FORMATS[what][0]}"):
        ExportSettings(what=what, format=stranger)


def test_only_crosscoders_in_our_format_go_to_the_hub() -> None:
    with pytest.raises(ValidationError, match=r"use export.what=checkpoint export.format=crossdiff"):
        ExportSettings(what="checkpoint", hub_id="me/it")
    assert ExportSettings(what="checkpoint", format="crossdiff", hub_id="me/it").hub_id == "me/it"
