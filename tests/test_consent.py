"""Who may be shown: rendered people, and real ones who agreed; never anybody by mistake."""

from __future__ import annotations

import datetime
import json

import pytest

from semanticface.errors import ConfigError
from semanticface.preference.consent import NAME, read_consent
from semanticface.preference.types import Slate
from semanticface.recipe import RECIPE_NAME

DAY = datetime.date(2026, 11, 22)


def listed(folder, text):
    (folder / NAME).write_text(text)
    return read_consent(folder)


def test_nobody_without_a_list(tmp_path):
    consent = read_consent(tmp_path)
    assert not consent.allows("ann") and not consent.allows("face-0000001")


def test_those_who_agreed(tmp_path):
    consent = listed(tmp_path, "subjects:\n  ann: true\n  ben: false\n  cem: {until: 2026-11-22}\n")
    assert consent.allows("ann", DAY) and not consent.allows("ben", DAY) and not consent.allows("dora", DAY)
    assert consent.allows("cem", DAY) and not consent.allows("cem", DAY + datetime.timedelta(days=1))
    assert not consent.allows("cem", datetime.date(2026, 11, 23)) and consent.allows("ann")
    assert not consent.allows("Ann", DAY)
    slates = [Slate(f"p{n}", n, name, ()) for n, name in enumerate(["ann", "ben", "ann", "eve", "ben"])]
    shown, hidden = consent.split(slates)
    assert [slate.row for slate in shown] == [0, 2] and hidden == {"ben", "eve"}


def test_rendered_people_need_no_entry_and_others_in_their_dataset_do(tmp_path):
    (tmp_path / RECIPE_NAME).write_text(json.dumps({"kind": "faces"}))
    consent = read_consent(tmp_path)
    assert consent.allows("face-0000012")
    assert not consent.allows("ann") and not consent.allows("face-12")
    (tmp_path / RECIPE_NAME).write_text(json.dumps({"kind": "adapter"}))
    assert not read_consent(tmp_path).allows("face-0000012")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("subjects:\n  ann: false\n  ann: true\n", "there twice"),
        ("subjects:\n  007: true\n", "Put it in quotation marks"),
        ("subjects:\n  no: true\n", "Put it in quotation marks"),
        ("subjects:\n  ann: 'yes'\n", "'yes' is not true, false"),
        ("subjects:\n  ann: {until: soon}\n", "is not true, false"),
        ("subjects:\n  ann: {until: 2026-11-22 10:00:00}\n", "is not true, false"),
        ("subjects:\n  ann: {shown: true}\n", "is not true, false"),
        ("subjects: [ann]\n", "must hold `subjects:`"),
        ("ann: true\n", "must hold `subjects:`"),
        ("subjects: {ann: true\n", "not valid YAML"),
        ("", "must hold `subjects:`"),
    ],
)
def test_a_list_that_may_mean_something_else_is_refused(tmp_path, text, told):
    with pytest.raises(ConfigError, match=told):
        listed(tmp_path, text)


def test_an_empty_list_is_nobody(tmp_path):
    assert not listed(tmp_path, "subjects:\n").allows("ann")
    (tmp_path / NAME).write_bytes(b"subjects: {\xff\xfe: true}")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_consent(tmp_path)
