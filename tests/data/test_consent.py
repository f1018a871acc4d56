"""Consent lists: rendered people need no entry, real ones do, and ambiguous lists are refused."""

import datetime
import json

import datasets
import pytest

from semanticface.data.consent import NAME, USES, consent_template, read_consent, read_consent_file, require_consent
from semanticface.data.provenance import source_of
from semanticface.errors import ConfigError
from semanticface.preference.files import split_by_consent
from semanticface.preference.types import CandidateSet
from semanticface.recipe import RECIPE_NAME

DAY = datetime.date(2026, 11, 22)


def listed(folder, text):
    (folder / NAME).write_text(text)
    return read_consent(folder)


def test_without_a_list_nobody_agreed(tmp_path):
    consent = read_consent(tmp_path)
    assert not consent.allows("ann") and not consent.allows("face-0000001")


def test_those_who_agreed(tmp_path):
    consent = listed(tmp_path, "subjects:\n  ann: true\n  ben: false\n  cem: {until: 2026-11-22}\n")
    assert consent.allows("ann", DAY) and not consent.allows("ben", DAY) and not consent.allows("dora", DAY)
    assert consent.allows("cem", DAY) and not consent.allows("cem", DAY + datetime.timedelta(days=1))
    assert not consent.allows("cem", datetime.date(2026, 11, 23)) and consent.allows("ann")
    assert not consent.allows("Ann", DAY)
    candidate_sets = [CandidateSet(f"p{n}", n, name, ()) for n, name in enumerate(["ann", "ben", "ann", "eve", "ben"])]
    allowed, hidden = split_by_consent(consent, candidate_sets)
    assert [each.row for each in allowed] == [0, 2] and hidden == {"ben", "eve"}


def test_one_unnamed_person_can_be_refused(tmp_path):
    consent = listed(tmp_path, "subjects:\n  portraits: true\n  portraits#3-0042: false\n  ann: true\n")
    assert consent.allows("portraits#3-0041") and not consent.allows("portraits#3-0042")
    assert set(consent.until) == {"portraits", "ann"}


@pytest.mark.parametrize("name", ["ann#2", "ann#", "ann#b", "ann#2-1", "#ann"])
def test_a_named_person_does_not_fall_under_a_part_of_the_name(tmp_path, name):
    assert not listed(tmp_path, "subjects:\n  ann: true\n").allows(name)
    assert listed(tmp_path, f'subjects:\n  "{name}": true\n').allows(name)


def test_rendered_people_need_no_entry_and_others_in_their_dataset_do(tmp_path):
    (tmp_path / RECIPE_NAME).write_text(json.dumps({"kind": "faces"}))
    consent = read_consent(tmp_path)
    assert consent.allows("face-0000012")
    assert not consent.allows("ann") and not consent.allows("face-12")
    (tmp_path / RECIPE_NAME).write_text(json.dumps({"kind": "adapter"}))
    assert not read_consent(tmp_path).allows("face-0000012")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subjects:\n  ann: false\n  ann: true\n", "appears twice"),
        ("subjects:\n  007: true\n", "Quote it"),
        ("subjects:\n  no: true\n", "Quote it"),
        ("subjects:\n  ann: 'yes'\n", "'yes' is not true, false"),
        ("subjects:\n  ann: {until: soon}\n", "is not true, false"),
        ("subjects:\n  ann: {until: 2026-11-22 10:00:00}\n", "is not true, false"),
        ("subjects:\n  ann: {shown: true}\n", "is not true, false"),
        ("subjects: [ann]\n", "must contain `subjects:`"),
        ("ann: true\n", "must contain `subjects:`"),
        ("subjects: {ann: true\n", "not valid YAML"),
        ("", "must contain `subjects:`"),
    ],
)
def test_an_ambiguous_list_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        listed(tmp_path, text)


def test_an_empty_or_unreadable_list(tmp_path):
    assert not listed(tmp_path, "subjects:\n").allows("ann")
    (tmp_path / NAME).write_bytes(b"subjects: {\xff\xfe: true}")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_consent(tmp_path)


def test_what_people_agreed_to(tmp_path):
    consent = listed(
        tmp_path,
        "subjects:\n"
        "  ann: {reference: 'binder 7', uses: [train, show], until: 2026-11-22}\n"
        "  ben: {licence: CC-BY-4.0, uses: [evaluate]}\n"
        "  cem: true\n",
    )

    def agreed(subject):
        return [use for use in USES if consent.allows(subject, DAY, use=use)]

    assert agreed("ann") == ["train", "evaluate", "show"]  # train includes evaluate
    assert agreed("ben") == ["evaluate"] and agreed("cem") == ["show"] and agreed("eve") == []
    assert consent.allows("ben", datetime.date(2100, 1, 1), use="evaluate")
    assert consent.permissions["ann"].reference == "binder 7" and consent.until["ann"] == DAY
    assert consent.refusal("ben", "train", DAY) == "ben agreed to evaluate, not to train"
    assert consent.refusal("ann", "show", DAY + datetime.timedelta(days=1)) == "the consent of ann ended on 2026-11-22"
    assert consent.refusal("eve", "show", DAY) == "no consent of eve"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{uses: [train]}", "where to find the consent"),
        ("{reference: '', uses: [train]}", "where to find the consent"),
        ("{reference: form}", "uses must be a list"),
        ("{reference: form, uses: train}", "uses must be a list"),
        ("{reference: form, uses: []}", "uses must be a list"),
        ("{reference: form, uses: [sell]}", "uses must be a list"),
        ("{reference: form, uses: [train], until: never}", "a day such as"),
        ("{reference: form, uses: [train], note: x}", "is not true, false"),
        ("{}", "is not true, false"),
    ],
)
def test_an_incomplete_entry_is_refused(tmp_path, entry, message):
    with pytest.raises(ConfigError, match=message):
        listed(tmp_path, f"subjects:\n  ann: {entry}\n")


def test_the_template_is_a_valid_list(tmp_path):
    people = ["ann", "007", "no", 'a "b": c', "zo\u00eb", "a\u2028b", "a\x85b", "../a/b"]
    (tmp_path / NAME).write_text(consent_template(people), encoding="utf-8")
    read = read_consent_file(tmp_path / NAME)
    assert list(read) == people
    assert read["007"].uses == {"train", "evaluate", "show"} and read["007"].until == datetime.date(2027, 12, 31)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_consent_file(tmp_path / "gone.yaml")


def test_two_unicode_spellings_mean_one_person(tmp_path):
    typed, on_disk = "zo\u00eb", "zoe\u0308"
    consent = listed(tmp_path, f"subjects:\n  {typed}: true\n")
    assert consent.allows(typed) and consent.allows(on_disk) and not consent.allows("zoe")
    with pytest.raises(ConfigError, match="appears twice"):
        listed(tmp_path, f"subjects:\n  {typed}: true\n  {on_disk}: false\n")


def rows_of(people, style, seed):
    columns = {"subject": people, "look": [style] * len(people), "seed": [seed] * len(people)}
    return datasets.Dataset.from_dict(columns)


def test_in_mixed_rows_only_rendered_people_need_no_consent(tmp_path):
    captured = rows_of(["ann", "face-0000002"], "capture", None)
    mixed = datasets.concatenate_datasets([captured, rows_of(["face-0000001"] * 2, "photo", 7)])
    with pytest.raises(ConfigError, match=r"no consent of ann; no consent of face-0000002\. Ask"):
        require_consent(tmp_path, mixed, "train")
    entry = "{reference: form, uses: [train]}"
    listed(tmp_path, f"subjects:\n  ann: {entry}\n  face-0000002: {entry}\n")
    require_consent(tmp_path, mixed, "train")
    source = source_of(mixed, tmp_path, "train")
    assert source.people == 2 and source.includes("ann") and not source.includes("face-0000001")


def test_a_list_applies_to_any_dataset(tmp_path):
    plain = datasets.Dataset.from_dict({"subject": ["ann", "ben", None]})
    require_consent(tmp_path, plain, "train")  # without a list, not known to be people
    listed(tmp_path, "subjects:\n  ann: {reference: form, uses: [train]}\n  ben: false\n")
    with pytest.raises(ConfigError, match="some rows do not say who is in them; no consent of ben"):
        require_consent(tmp_path, plain, "train")
    require_consent(tmp_path, plain.select([0]), "train")
