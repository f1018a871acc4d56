"""Grammar of an answer's analysis: the text of ``answer.format_answer`` up to its first number.

Fixed keys in fixed order, no free whitespace. Texts are free and of bounded length, or limited to what may be said of
a face (``statements``). llguidance turns a grammar into token masks for any fast tokenizer. The numbers need none,
because their tokens are known (``models.answer_tokens``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from llguidance import LLMatcher

from semanticface.arkit import NAMES, REGIONS
from semanticface.semantics.answer import (
    ANALYSIS_END,
    ARKIT_START,
    FIRST_KEY,
    MAX_DEFAULT_LENGTH,
    MAX_LENGTH,
    NUMBER_TEXTS,
    POSE_KEYS,
    POSE_TEXTS,
)
from semanticface.semantics.statements import Clause, Statements

# Printable ASCII without quote and backslash; a text does not start with a space.
_LETTER = r"[ !#-\[\]-~]"
_FIRST_LETTER = r"[!#-\[\]-~]"

SLICES = (f"{_LETTER}{{1,16}}", f"{_LETTER}{{1,64}}")
"""Lexer slices: llguidance precomputes which tokens match them, 6 times as fast for a vocabulary of 56,000."""


def _fields(emotion: bool) -> list[tuple[str, str]]:
    """Return the analysis fields in order, each with the fixed text before it."""
    before = {"expression_category": '{"analysis":{"expression_category":"'}
    before |= {region: f'","{region}":"' for region in REGIONS}
    before[REGIONS[0]] = f'","muscle_movements":{{"{REGIONS[0]}":"'
    if emotion:
        before |= {"emotional_implication": '"},"emotional_implication":"', "symmetry": '","symmetry":"'}
    else:
        before["symmetry"] = '"},"symmetry":"'
    return list(before.items())


def analysis_grammar(*, emotion: bool = True, after_numbers: bool = False) -> str:
    """Return the llguidance grammar (Lark) of an answer from its first brace to its first number's key.

    With ``after_numbers``, for answers with the analysis last: from the first character of its text to the end.
    """
    body = []
    for field, before in _fields(emotion):
        body += [json.dumps(before), f"TEXT_{MAX_LENGTH.get(field, MAX_DEFAULT_LENGTH)}"]
    body.append(json.dumps(FIRST_KEY))
    if after_numbers:
        body = [*body[1:-1], json.dumps('"}}')]
    lengths = {*MAX_LENGTH.values(), MAX_DEFAULT_LENGTH}
    texts = [rf"TEXT_{most}: /{_FIRST_LETTER}{_LETTER}{{0,{most - 1}}}/" for most in lengths]
    return LLMatcher.grammar_from_lark("\n".join([f"start: {' '.join(body)}", *texts]) + "\n")


def statements_grammar(found: Statements) -> str:
    """Return the grammar of ``analysis_grammar`` whose texts say only what ``found`` allows."""
    body: list[str] = []
    terminals: list[str] = []
    for field, before in _fields("emotional_implication" in found.phrases):
        name = field.upper()
        body += [json.dumps(before), name]
        if field in found.phrases:
            terminals.append(f"{name}: {_one_of(found.phrases[field])}")
        else:
            terminals += _region_terminals(name, *found.regions[field], " and " if field == "gaze" else ", ")
    body.append(json.dumps(FIRST_KEY))
    return LLMatcher.grammar_from_lark("\n".join([f"start: {' '.join(body)}", *terminals]) + "\n")


def _one_of(texts: Sequence[str]) -> str:
    return f"({' | '.join(map(json.dumps, texts))})"


def _region_terminals(name: str, clauses: Sequence[Clause], phrases: Sequence[str], between: str) -> Iterator[str]:
    """Yield terminals for any of the clauses in order, at least one, or one of the phrases."""
    starts = []
    for number, clause in enumerate(clauses):
        own = f"{name}_{number}"
        texts = [_one_of(each) for each in clause.movements]
        yield from _some_in_order(f"{own}_M", texts, between)
        yield f"{own}: {json.dumps(clause.subject) if clause.subject else ''} {own}_M_0"
        starts.append(own)
    if starts:
        yield from _some_in_order(f"{name}_C", starts, ", ")
        starts = [f"{name}_C_0"]
    yield f"{name}: {' | '.join([*starts, *map(json.dumps, phrases)])}"


def _some_in_order(name: str, parts: Sequence[str], between: str) -> Iterator[str]:
    """Yield terminals, the last of which, ``{name}_0``, is any of the parts in order, at least one."""
    later = ""
    for number in reversed(range(len(parts))):
        one = f"{parts[number]} ({json.dumps(between)} {later})? | {later}" if later else parts[number]
        later = f"{name}_{number}"
        yield f"{later}: {one}"


def max_answer_bytes(*, emotion: bool = True, pose: bool = False) -> int:
    """Return the length of the longest possible answer in bytes."""
    texts = sum(len(before) + MAX_LENGTH.get(name, MAX_DEFAULT_LENGTH) for name, before in _fields(emotion))
    numbers = sum(len(f'"{name}":,') + len(NUMBER_TEXTS[0]) for name in NAMES)
    numbers += pose * sum(len(key) + len(POSE_TEXTS[0]) for key in POSE_KEYS)
    return texts + len(ANALYSIS_END + ARKIT_START) + numbers + len("}")
