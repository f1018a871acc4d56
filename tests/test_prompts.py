"""The prompts: installed, versioned, and consistent with the answer format."""

import json
import re

import jsonschema
import numpy as np
import pytest

from semanticface.arkit import NAMES, REGIONS
from semanticface.errors import ConfigError
from semanticface.prompts import load_prompt, messages, prompt_names
from semanticface.semantics.analysis import GRADES, describe
from semanticface.semantics.answer import SCHEMA, format_answer, parse_answer
from semanticface.semantics.faithfulness import agreement


def test_the_prompts_are_installed():
    assert prompt_names() == ("describe", "distill", "published", "zero_shot", "zero_shot_numbers")


@pytest.mark.parametrize("name", ["distill", "zero_shot"])
@pytest.mark.parametrize("emotion", [True, False])
def test_a_prompt_has_all_its_parts(name, emotion):
    prompt = load_prompt(name, emotion=emotion)
    assert prompt.name == name and prompt.version >= 1
    assert re.fullmatch("[0-9a-f]{64}", prompt.sha256)
    words = f"{prompt.system}\n{prompt.user}"
    assert prompt.system and prompt.user and "===" not in words
    assert ("emotion" in words.lower()) is emotion
    assert "{emotion" not in words
    assert "subject's own" in words


def test_switching_emotion_off_changes_the_hash_and_nothing_else():
    with_emotion, without = load_prompt("zero_shot"), load_prompt("zero_shot", emotion=False)
    assert with_emotion.sha256 != without.sha256
    assert with_emotion.system == without.system and with_emotion.version == without.version
    assert load_prompt("distill") == load_prompt("distill", emotion=True)


def test_distill_is_short():
    prompt = load_prompt("distill")
    assert len(f"{prompt.system} {prompt.user}".split()) <= 50


@pytest.mark.parametrize("emotion", [True, False])
def test_zero_shot_explains_every_action_region_and_grade_with_a_correct_example(emotion):
    prompt = load_prompt("zero_shot", emotion=emotion)
    words = f"{prompt.system}\n{prompt.user}"
    explained = prompt.system.partition("The 52 actions")[2]
    assert all(re.search(rf"\b{name}\b.*: ", explained) for name in NAMES)
    assert all(region in prompt.user for region in REGIONS)
    for adverb, low, high in GRADES:
        assert f"{low / 100:.2f}-{high / 100:.2f} {adverb}" in words
    (line,) = [line for line in prompt.user.splitlines() if line.startswith("{")]
    jsonschema.validate(json.loads(line), SCHEMA)
    answer = parse_answer(line)
    assert answer.analysis == describe(answer.coefficients, emotion=emotion)
    assert line == format_answer(answer.coefficients, answer.analysis)
    assert agreement(answer.analysis, answer.coefficients).score == 1


def test_an_unknown_prompt_lists_the_known_ones():
    with pytest.raises(ConfigError, match="describe, distill, published, zero_shot"):
        load_prompt("nothing")


def test_messages_have_images_before_text_and_the_answer_last():
    prompt = load_prompt("distill")
    system, user = messages(prompt, n_images=2)
    assert system == {"role": "system", "content": [{"type": "text", "text": prompt.system}]}
    assert [part["type"] for part in user["content"]] == ["image", "image", "text"]
    assert user["content"][2]["text"] == prompt.user
    text = format_answer(np.zeros(52), describe(np.zeros(52)))
    *_, assistant = messages(prompt, text)
    assert assistant == {"role": "assistant", "content": [{"type": "text", "text": text}]}
