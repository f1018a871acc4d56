"""Answers: canonical text, tolerant parsing, rejections with codes, and a fuzz test with an independent oracle."""

import json
import math
import random
import re
from collections import Counter

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from semanticface.arkit import INDEX, NAMES, PASCAL_CASE, POSE_NAMES, SUFFIXED, vector
from semanticface.errors import AnswerError
from semanticface.semantics.analysis import Analysis, describe
from semanticface.semantics.answer import MAX_CHARACTERS, SCHEMA, format_answer, parse_answer

vectors = arrays(np.float32, 52, elements=st.floats(0, 1, width=32))
FACE = vector({"mouthSmileLeft": 0.5, "mouthSmileRight": 0.25, "jawOpen": 1.0, "browInnerUp": 0.07})


def canonical(coefficients=FACE, *, emotion=True) -> str:
    return format_answer(coefficients, describe(coefficients, emotion=emotion))


def bare(coefficients=FACE, spelling=PASCAL_CASE, pose=False) -> dict[str, float]:
    values = {spelling[name]: round(float(value), 2) for name, value in zip(NAMES, coefficients, strict=True)}
    return values | ({name: -0.1 * i for i, name in enumerate(POSE_NAMES)} if pose else {})


def rejection(text: str) -> str:
    with pytest.raises(AnswerError) as caught:
        parse_answer(text)
    assert str(caught.value)
    return caught.value.code


def test_the_schema_is_valid():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_canonical_text_is_compact_ordered_and_matches_the_schema():
    text = canonical()
    assert text.startswith('{"analysis":{"expression_category":"') and text.endswith('"tongueOut":0.00}}')
    value = json.loads(text)
    jsonschema.validate(value, SCHEMA)
    assert list(value["arkit"]) == list(NAMES)
    assert list(value["analysis"]) == ["expression_category", "muscle_movements", "emotional_implication", "symmetry"]
    assert re.findall(r":(\d\.\d+)", text) == [f"{value:.2f}" for value in FACE]
    off = json.loads(canonical(emotion=False))
    jsonschema.validate(off, SCHEMA)
    assert "emotional_implication" not in off["analysis"]


@given(vectors, st.booleans())
def test_parsing_returns_the_rounded_vector_and_the_same_analysis(coefficients, emotion):
    analysis = describe(coefficients, emotion=emotion)
    text = format_answer(coefficients, analysis)
    answer = parse_answer(text)
    assert answer.coefficients.dtype == np.float32
    assert np.array_equal(answer.coefficients, np.round(coefficients.astype(np.float64), 2).astype(np.float32))
    assert answer.analysis == analysis and answer.pose is None
    assert format_answer(answer.coefficients, describe(answer.coefficients, emotion=emotion)) == text
    jsonschema.validate(json.loads(text), SCHEMA)


@given(st.text(min_size=1).filter(lambda text: text.strip() and text.isprintable()))
def test_any_text_round_trips(words):
    analysis = describe(FACE)
    analysis = Analysis(words, analysis.muscle_movements, words, words)
    assert parse_answer(format_answer(FACE, analysis)).analysis == analysis


@pytest.mark.parametrize("bad", [np.zeros(51), np.zeros((1, 52)), np.full(52, np.nan), np.full(52, 1.01)])
def test_format_rejects_invalid_coefficients(bad):
    with pytest.raises(ValueError, match="coefficients"):
        format_answer(bad, describe(FACE))


PUBLISHED = (
    "1. **Expression category**: a smile {mild}.\n2. **Muscle movements**: corners up.\n"
    "3. **Emotional implication**: joy.\n4. **Symmetry**: even.\n\n"
)


@pytest.mark.parametrize(
    "text",
    [
        canonical(),
        f"  \n{canonical()}\n",
        f"```json\n{canonical()}\n```",
        f"Sure! Here is the answer for the {{face}}:\n{canonical()}\nHope that helps :)",
        f"<think>hm, {{…}}</think>{canonical()}",
        f"{canonical()}\n{canonical()}",
        json.dumps(json.loads(canonical()), indent=2),
        json.dumps(dict(reversed(json.loads(canonical()).items()))),
        json.dumps({"arkit": bare(), "analysis": "a smile"}),
        json.dumps({"arkit": bare(spelling=SUFFIXED)}),
        json.dumps(bare()),
        json.dumps(bare(pose=True)),
        json.dumps({name.lower(): value for name, value in bare().items()}),
        PUBLISHED + json.dumps(bare(pose=True)),
        f"{PUBLISHED}```\n{json.dumps(bare(pose=True), indent=4)}\n```",
        f"[{json.dumps(bare())}]",
        canonical().replace("0.00", "-0.0").replace("1.00", "1"),
        canonical().replace("0.00", "0e5"),
    ],
)
def test_real_model_outputs_are_parsed(text):
    answer = parse_answer(text)
    assert np.array_equal(answer.coefficients, FACE)
    assert not np.signbit(answer.coefficients).any()


def test_pose_is_kept_and_never_made_up():
    assert parse_answer(json.dumps(bare())).pose is None
    pose = parse_answer(json.dumps(bare(pose=True))).pose
    assert pose == {name: -0.1 * i for i, name in enumerate(POSE_NAMES)}
    assert parse_answer(json.dumps({"arkit": bare() | {"headYaw": 2}})).pose == {"HeadYaw": 2.0}


def test_a_malformed_analysis_is_none_and_the_numbers_are_kept():
    for analysis in ("a smile", {"expression": "smile"}, None, ["x"], {**describe(FACE).to_dict(), "symmetry": 3}):
        answer = parse_answer(json.dumps({"analysis": analysis, "arkit": bare()}))
        assert answer.analysis is None and np.array_equal(answer.coefficients, FACE)
    lone = json.dumps({"analysis": {**describe(FACE).to_dict(), "symmetry": "\ud800"}, "arkit": bare()})
    assert parse_answer(lone).analysis is None
    shuffled = dict(reversed(describe(FACE).to_dict().items()))
    assert parse_answer(json.dumps({"analysis": shuffled, "arkit": bare()})).analysis == describe(FACE)


def changed(**values: object) -> str:
    return json.dumps({"arkit": bare(spelling=dict(zip(NAMES, NAMES, strict=True))) | values})


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "no_json"),
        ("I cannot see a face.", "no_json"),
        ("{}", "no_json"),
        ("{x} {'eyeBlinkLeft': 0.1}", "no_json"),
        ('{"note": 1}', "no_json"),
        ('{"response": {"arkit": 1}}', "no_json"),
        (canonical()[:-1], "truncated"),
        (canonical()[:-2], "truncated"),
        (canonical()[:-4], "truncated"),
        (canonical()[:700], "truncated"),
        (canonical()[:40], "truncated"),
        ("{", "truncated"),
        ('{"analysis": "\\u00', "truncated"),
        (canonical()[1:], "bad_json"),
        (canonical() + "}", "bad_json"),
        (canonical().replace(",", ";", 12), "bad_json"),
        (canonical().replace("0.50", "0.5.0"), "bad_json"),
        (canonical().replace("0.50", "00.50"), "bad_json"),
        (canonical().replace("0.50", ".50"), "bad_json"),
        ('{"a":' * 100_000, "bad_json"),
        ('{"a":' + "[" * 100_000, "bad_json"),
        (f'{{"jawOpen": {"9" * 5000}}}', "bad_json"),
        (json.dumps({"analysis": {}}), "missing_keys"),
        (json.dumps({"jawOpen": 0.5}), "missing_keys"),
        (json.dumps({"arkit": {}}), "missing_keys"),
        (re.sub(r'"jawOpen":1.00,', "", canonical()), "missing_keys"),
        (changed(eyeRoll=0.1), "unknown_keys"),
        (changed(_neutral=0.1), "unknown_keys"),
        (json.dumps({"arkit": bare(), "confidence": 1}), "unknown_keys"),
        (changed().replace("eyeBlinkLeft", "eyeBlin\u212aLeft"), "unknown_keys"),
        (canonical().replace('"jawOpen":', '"jawOpen":1.00,"jawOpen":'), "duplicate_keys"),
        (canonical().replace('"symmetry":', '"symmetry":"x","symmetry":'), "duplicate_keys"),
        (changed(JawOpen=1.0), "duplicate_keys"),
        (changed(eyeBlink_L=0.0), "duplicate_keys"),
        (json.dumps({"arkit": bare() | {"headYaw": 0.1, "HeadYaw": 0.1}}), "duplicate_keys"),
        (changed(jawOpen=None), "not_a_number"),
        (changed(jawOpen=True), "not_a_number"),
        (changed(jawOpen=False), "not_a_number"),
        (changed(jawOpen="0.5"), "not_a_number"),
        (changed(jawOpen=[0.5]), "not_a_number"),
        (changed(HeadYaw="0.5"), "not_a_number"),
        (json.dumps({"arkit": [0.0] * 52}), "not_a_number"),
        (changed(jawOpen=math.nan), "not_finite"),
        (changed(jawOpen=math.inf), "not_finite"),
        (changed(jawOpen=-math.inf), "not_finite"),
        (changed(HeadYaw=math.nan), "not_finite"),
        (changed().replace('"jawOpen": 1.0', '"jawOpen": 1e999'), "not_finite"),
        (changed(jawOpen=10**400), "not_finite"),
        (changed(jawOpen=1.0200001), "out_of_range"),
        (changed(jawOpen=-0.021), "out_of_range"),
        (f"<think>Perhaps {canonical()}, or", "truncated"),
        (changed(jawOpen=37), "out_of_range"),
        (canonical() + canonical(np.ones(52)), "ambiguous"),
        (canonical() + canonical(emotion=False), "ambiguous"),
        (json.dumps(bare()) + json.dumps(bare(pose=True)), "ambiguous"),
        (f"{json.dumps(bare())} {json.dumps({'jawOpen': 0.1})}", "missing_keys"),
        ("x" * (MAX_CHARACTERS + 1), "too_long"),
    ],
)
def test_rejected_with_its_code(text, code):
    assert rejection(text) == code


@given(st.text())
def test_no_text_crashes(text):
    assert rejection(text) in {"no_json", "truncated", "bad_json"}


@given(st.text(alphabet='{}[]":,.0123456789eE+-NaIinftyulr\\ \n\ud800\u212a\x00', max_size=60))
def test_no_text_of_json_pieces_crashes(text):
    assert rejection(text) in {"no_json", "truncated", "bad_json", "duplicate_keys", "not_finite"}


PIECES = [
    "{", "}", "[", "]", '"', ":", ",", " ", "\n", "-", ".", "e", "0", "1", "9", "\\", "\x00", "\ud800", "é", "{}",
    "null", "true", "NaN", "Infinity", "-Infinity", '"0.5"', "1e999", "-0.0", "1.01", "```", '{"jawOpen":0.1}',
    '"jawOpen":0.30,',
    '"JawOpen":0.30,', '"eyeBlink_L":0.10,', '"HeadYaw":0.1,', '"x":0.1,', "//", "\\u0041", "0.5", "{'",
]  # fmt: skip
VALUE = re.compile(r"(?<=:)\s*-?[\d.]+")
PAIR = re.compile(r'"\w+":\s*-?[\d.]+,?')


def seeds(rng: random.Random) -> list[str]:
    """Return valid answers in every format."""
    numbers = np.random.default_rng(rng.randrange(2**32))
    out = []
    for _ in range(12):
        face = np.round(numbers.random(52) * (numbers.random(52) < 0.3), 2)
        text = canonical(face, emotion=bool(numbers.integers(2)))
        out += [
            text,
            f"```json\n{text}\n```",
            json.dumps(json.loads(text), indent=1),
            PUBLISHED + json.dumps(bare(face, pose=True)),
            json.dumps({"arkit": bare(face, SUFFIXED)}),
        ]
    return out


def mutated(text: str, pool: list[str], rng: random.Random) -> str:
    """Return the text after one to three random edits."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = rng.randrange(9)
        at = rng.randrange(len(text) + 1)
        if kind == 0:
            text = (
                f"{text[:at]}{chr(ord(text[at]) ^ (1 << rng.randrange(7)))}{text[at + 1 :]}" if at < len(text) else text
            )
        elif kind == 1:
            text = text[:at] + text[at + rng.choice((1, 1, 2, 8, 60)) :]
        elif kind == 2:
            text = text[:at] + rng.choice(PIECES) + text[at:]
        elif kind == 3:
            text = text[:at] + text[at + 1 : at + 2] + text[at : at + 1] + text[at + 2 :]
        elif kind == 4:
            text = text[: rng.choice((at, max(0, len(text) - rng.randrange(1, 6))))]
        elif kind == 5 and (pairs := list(PAIR.finditer(text))):
            pair, other = rng.choice(pairs), rng.choice(pairs)
            text = text[: other.start()] + pair[0].rstrip(",") + "," + text[other.start() :]
        elif kind == 6 and (values := list(VALUE.finditer(text))):
            value = rng.choice(values)
            text = text[: value.start()] + rng.choice(PIECES) + text[value.end() :]
        elif kind == 7 and (values := list(VALUE.finditer(text))):
            value = rng.choice(values)
            text = text[: value.start()] + f"{rng.uniform(-0.2, 1.3):.{rng.randrange(1, 8)}f}" + text[value.end() :]
        elif kind == 8:
            text = text[:at] + rng.choice(pool)[rng.choice((0, at)) :]
    return text


def oracle(text: str) -> list[np.ndarray]:
    """Return the coefficients of every answer in a text, independently of the parser."""
    text = text.split("</think>")[-1]

    def reject(_: str) -> None:
        raise ValueError

    decoder = json.JSONDecoder(object_pairs_hook=tuple, parse_constant=reject)
    spellings = {name: {name.lower(), SUFFIXED[name].lower()} for name in NAMES}
    found = []
    stop = 0
    for brace in re.finditer(r"\{", text):
        if brace.start() < stop:
            continue
        try:
            pairs, stop = decoder.raw_decode(text, brace.start())
        except (ValueError, RecursionError):
            continue
        top = [key for key, _ in pairs]
        if "arkit" in top or "analysis" in top:
            assert sorted(top) in (["analysis", "arkit"], ["arkit"])
            pairs = dict(pairs)["arkit"]
        held = [(name, value) for key, value in pairs for name in NAMES if key.lower() in spellings[name]]
        if not held:
            continue
        assert sorted(name for name, _ in held) == sorted(NAMES), "keys are missing or given twice"
        rest = {key.lower() for key, _ in pairs} - {s for name in NAMES for s in spellings[name]}
        assert rest <= {name.lower() for name in POSE_NAMES}
        assert all(type(value) in (int, float) and -0.02 <= value <= 1.02 for _, value in held)
        values = np.zeros(52)
        for name, value in held:
            values[INDEX[name]] = min(max(value, 0), 1)
        found.append(values)
    return found


def test_fuzz_no_crash_and_no_false_acceptance():
    rng = random.Random(20261121)
    codes: Counter[str] = Counter()
    rounds = 100
    for _ in range(rounds):
        pool = seeds(rng)
        for text in pool:
            assert parse_answer(text).coefficients.shape == (52,)
        for _ in range(1000):
            text = mutated(rng.choice(pool), pool, rng)
            try:
                answer = parse_answer(text)
            except AnswerError as error:
                codes[error.code] += 1
                continue
            codes["accepted"] += 1
            values = answer.coefficients
            assert values.shape == (52,) and values.dtype == np.float32
            assert np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1
            truth = oracle(text)
            assert truth, text
            assert all(np.array_equal(values, one.astype(np.float32)) for one in truth), text
    assert sum(codes.values()) == rounds * 1000
    # The fuzz reaches every code, and leaves enough valid texts for the oracle to check.
    assert codes["accepted"] > 5000
    assert set(codes) - {"accepted"} >= {
        "no_json", "truncated", "bad_json", "missing_keys", "unknown_keys", "duplicate_keys", "not_a_number",
        "not_finite", "out_of_range", "ambiguous",
    }, codes  # fmt: skip


def test_a_pose_is_written_and_read_in_radians():
    """Rotations are rounded to fiftieths and clipped to one radian; Live Link's nine names, beside the 52."""
    pose = np.array([-0.444, 0.3, 0, 1.5, -2, 0.001, 0.011, -0.011, 0.6])
    text = format_answer(np.zeros(52), describe(np.zeros(52)), pose)
    read = parse_answer(text).pose
    assert read == dict(zip(POSE_NAMES, [-0.44, 0.3, 0, 1, -1, 0, 0.02, -0.02, 0.6], strict=True))
    jsonschema.validate(json.loads(text), SCHEMA)
    bare = format_answer(np.zeros(52), None, pose)
    assert parse_answer(bare).pose == read and parse_answer(bare).analysis is None
    with pytest.raises(ValueError, match="9"):
        format_answer(np.zeros(52), None, np.zeros(8))
    with pytest.raises(ValueError, match="finite"):
        format_answer(np.zeros(52), None, np.full(9, np.nan))


@pytest.mark.parametrize(
    ("pose", "code"),
    [
        ("3", "not_a_number"),
        ("{}", "missing_keys"),
        ('{"HeadYaw":0.1}', "missing_keys"),
        ('{"HeadYaw":"left"}', "not_a_number"),
        ('{"HeadYaw":1e999}', "not_finite"),
        ('{"NoseYaw":0.1}', "unknown_keys"),
        ('{"HeadYaw":0.1,"headYaw":0.1}', "duplicate_keys"),
    ],
)
def test_a_bad_pose_is_an_error(pose, code):
    text = format_answer(np.zeros(52), None)[:-1] + f',"pose":{pose}}}'
    with pytest.raises(AnswerError) as caught:
        parse_answer(text)
    assert caught.value.code == code


def test_only_what_follows_the_last_thought_counts():
    draft, other = canonical(np.zeros(52)), canonical(np.ones(52))
    for text in (
        f"<think>\nFirst try: {draft}\n</think>\n\n{canonical()}",
        f"{draft} </think><think>{other}, or {{</think>```json\n{canonical()}\n```",
    ):
        assert parse_answer(text).coefficients.tolist() == parse_answer(canonical()).coefficients.tolist()


@pytest.mark.parametrize(("value", "read"), [(1.0000001, 1), (-0.004, 0), (1.02, 1), (-0.02, 0)])
def test_values_just_outside_are_the_border(value, read):
    assert parse_answer(changed(jawOpen=value)).coefficients[INDEX["jawOpen"]] == read


def test_the_reason_shows_the_number_as_it_is():
    with pytest.raises(AnswerError, match=r"jawOpen is 1\.0200001; "):
        parse_answer(changed(jawOpen=1.0200001))
