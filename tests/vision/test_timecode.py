"""Timecodes: equal to Live Link Face's at every rate, and strictly increasing."""

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semanticface.errors import SemanticFaceError
from semanticface.vision.timecode import (
    RATES,
    Clock,
    Start,
    format_rate,
    parse,
    parse_rate,
    parse_timecode,
    standard_rate,
    timecode_rate,
)

NTSC = Fraction(30000, 1001)


def ticks(label: str, base: int) -> int:
    """Thousandths of a frame since midnight."""
    clock, fraction = label.split(".")
    hours, minutes, seconds, frame = map(int, clock.split(":"))
    assert len(label) == 15 and minutes < 60 and seconds < 60 and frame < base
    return (((hours * 60 + minutes) * 60 + seconds) * base + frame) * 1000 + int(fraction)


@pytest.mark.parametrize("rate", RATES)
def test_frames_at_their_own_rate_are_consecutive_integers(rate):
    clock, base = Clock(rate), round(rate)
    labels = [clock.label(n / rate) for n in range(3 * base)]
    assert [ticks(label, base) for label in labels] == [n * 1000 for n in range(3 * base)]
    assert labels[base - 1 : base + 1] == [f"00:00:00:{base - 1:02d}.000", "00:00:01:00.000"]


def test_broadcast_rates_are_non_drop_frame():
    assert Clock(NTSC).label(Fraction(1800) / NTSC) == "00:01:00:00.000"  # drop-frame would say 00:01:00;02


def test_another_rate_keeps_exact_times():
    clock = Clock(Fraction(60))
    assert [clock.label(Fraction(n, 24)) for n in (0, 1, 2, 24)] == [
        "00:00:00:00.000", "00:00:00:02.500", "00:00:00:05.000", "00:00:01:00.000",
    ]  # fmt: skip


def test_a_fraction_that_rounds_up_carries():
    assert Clock(Fraction(30)).label(Fraction(999_999, 1_000_000)) == "00:00:01:00.000"


def test_midnight():
    clock = Clock(Fraction(25), Start(86399, 24))
    assert [clock.label(Fraction(n, 25)) for n in (0, 1)] == ["23:59:59:24.000", "00:00:00:00.000"]


@given(
    times=st.lists(st.fractions(0, 3000), min_size=1, max_size=40),
    rate=st.sampled_from(RATES),
    seconds=st.integers(0, 70_000),
)
def test_timecodes_increase_and_are_accurate_to_a_thousandth(times, rate, seconds):
    clock, base = Clock(rate, Start(seconds, 3)), round(rate)
    found = [ticks(clock.label(time), base) for time in sorted(times)]
    assert all(later > earlier for earlier, later in itertools.pairwise(found))
    zero = (seconds * base + 3) * 1000
    # Frames closer than a thousandth of a frame are pushed apart, by less than one step for each of them.
    for label, time in zip(found, sorted(times), strict=True):
        assert abs(label - zero - time * rate * 1000) <= len(times)


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("13:13:04:31.652", (47584, Fraction("31.652"))), ("00:00:00;29", (0, Fraction(29))),
        (" 1:02:03:100 ", (3723, Fraction(100))), ("24:00:00:00.000", None), ("00:00:00.290", None),
        ("00:00:00:29.", None), ("frame 3", None),
    ],
)  # fmt: skip
def test_timecodes(text, means):
    assert parse(text) == means


@pytest.mark.parametrize(
    ("text", "rate", "start"),
    [
        ("01:02:03:04", 30, Start(3723, 4)),
        ("01:02:03;04", NTSC, Start(3723, 4, drop_frame=True)),
        ("23:59:59:59", 60, Start(86399, 59)),
    ],
)
def test_start_timecodes_are_parsed(text, rate, start):
    assert parse_timecode(text, Fraction(rate)) == start
    assert parse_timecode(f"{text[:8]}.{text[9:]}", Fraction(rate)) == Start(start.seconds, start.frame)
    assert Clock(Fraction(rate), start).label(Fraction(0)) == text.replace(";", ":") + ".000"


@pytest.mark.parametrize(
    "text", ["", "1:2:3:4", "24:00:00:00", "00:60:00:00", "00:00:60:00", "00:00:00:30", "00:00:00:12.5", "soon"]
)
def test_invalid_timecodes_are_rejected(text):
    with pytest.raises(SemanticFaceError, match="HH:MM:SS:FF, with FF from 00 to 29"):
        parse_timecode(text, Fraction(30))


def test_a_start_at_another_rate_is_converted():
    start = parse_timecode("10:00:00:12", Fraction(24))
    assert Clock(Fraction(60), start, Fraction(24)).label(Fraction(0)) == "10:00:00:30.000"


@pytest.mark.parametrize(
    ("measured", "named", "counted"),
    [
        (Fraction(30), 30, 30), (NTSC, NTSC, NTSC), (Fraction(23976, 1000), RATES[0], RATES[0]),
        (Fraction(5994, 100), RATES[6], RATES[6]), (Fraction(2998, 100), NTSC, NTSC), (Fraction(297, 10), None, 30),
        (Fraction(15), None, 30), (Fraction(31), None, 60), (Fraction(120), None, 60),
    ],
)  # fmt: skip
def test_timecode_rates(measured, named, counted):
    assert standard_rate(measured) == named
    assert timecode_rate(measured) == counted


@pytest.mark.parametrize(
    ("text", "rate"),
    [("30", 30), ("29.97", NTSC), ("23.98", RATES[0]), ("23.976", RATES[0]), ("30000/1001", NTSC), ("12.5", 12.5)],
)
def test_rates_are_parsed(text, rate):
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["0", "-5", "nan", "inf", "1/0", "fast", "1e9", ""])
def test_invalid_rates_are_rejected(text):
    with pytest.raises(ValueError, match="from 1 to 1000"):
        parse_rate(text)


def test_rates_are_formatted():
    assert [format_rate(rate) for rate in RATES] == ["23.976", "24", "25", "29.97", "30", "50", "59.94", "60"]
