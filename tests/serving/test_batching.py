"""The line before a model: nobody gets another's answer, nobody is lost, and there is an end to what waits."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest

from semanticface.errors import ModelError
from semanticface.inference.predictor import Predictor, PreparedFace
from semanticface.serving.batching import BatchingService, UnavailableError
from tests.helpers.served import PATIENCE, Gate, crops, png


@pytest.fixture(scope="module")
def predictor():
    return Predictor.from_pretrained("nano", device="cpu", mode="numbers")


@pytest.fixture
def begin(predictor):
    """Start services that are stopped in the end."""
    begun = []

    def start(load=lambda: predictor, **settings):
        service, told = BatchingService(load, **settings), threading.Event()
        begun.append(service)
        service.start(lambda _: told.set())
        assert told.wait(PATIENCE)
        return service

    yield start
    for service in begun:
        service.close()


def look(service, number, count=24):
    found = service.make_ready(png(crops(count)[number]), "none", f"face {number}")
    assert isinstance(found, PreparedFace)
    return found


def ask_for(service, number, ask=None):
    with service.place() as place:
        return place.submit(look(service, number), ask or service.usual).result(PATIENCE)


def test_many_threads_get_each_their_own_answer(begin, predictor):
    expected = predictor(crops(24), crop="none")
    service = begin(batch_size=5)
    with Gate(predictor) as gate:
        gate.open.set()
        with ThreadPoolExecutor(12) as threads:
            found = list(threads.map(lambda number: ask_for(service, number), range(24)))
    assert [(each.image, each.text) for (each,) in found] == [
        (f"face {number}", each.text) for number, each in enumerate(expected)
    ]
    assert len({each.text for (each,) in found}) == 24
    assert sorted(chain(*gate.batches)) == sorted(f"face {number}" for number in range(24))
    assert max(map(len, gate.batches)) <= 5
    for (each,), direct in zip(found, expected, strict=True):
        np.testing.assert_allclose(each.mean, direct.mean, atol=1e-5)


def test_a_batch_waits_for_those_on_their_way_and_for_nobody_else(begin, predictor):
    service = begin(wait=PATIENCE)
    assert ask_for(service, 0)[0].status == "ok"  # alone: would time out if it waited
    with Gate(predictor) as gate, service.place() as first, service.place() as second:
        gate.open.set()
        early = first.submit(look(service, 1), service.usual)
        with service.place():  # leaves without a picture
            pass
        late = second.submit(look(service, 2), service.usual)
        assert [each.result(PATIENCE)[0].image for each in (early, late)] == ["face 1", "face 2"]
    assert gate.batches == [["face 1", "face 2"]]


def test_pictures_that_are_read_differently_do_not_share_a_batch(begin, predictor):
    service = begin()
    usual = service.usual
    full = replace(usual, mode="full", emotion=False)
    sampled = replace(usual, temperature=1.0, seed=7, answers=3)
    asks = [usual, full, sampled, usual, sampled, replace(sampled, seed=8)]
    with Gate(predictor) as gate, ThreadPoolExecutor(len(asks) + 1) as threads:
        first = threads.submit(ask_for, service, 20)
        assert gate.reached.acquire(timeout=PATIENCE)
        futures = [threads.submit(ask_for, service, number, ask) for number, ask in enumerate(asks)]
        gate.open.set()
        found = [future.result() for future in futures]
        first.result()
    assert all(set(batch) <= part for batch in gate.batches for part in _apart(batch))
    words = Predictor(predictor.bundle, mode="full", emotion=False)
    assert found[1][0].analysis == words([crops(24)[1]], crop="none")[0].analysis
    assert "emotional_implication" not in found[1][0].text
    for number in (2, 4, 5):
        alone = predictor([crops(24)[number]], crop="none", temperature=1.0, seed=asks[number].seed, answers=3)
        assert [each.text for each in found[number]] == [each.text for each in alone]


def test_samples_of_a_picture_are_rows_of_a_batch(begin, predictor):
    service = begin(batch_size=4)
    for answers, expected in ((3, [1, 1]), (2, [2])):
        ask = replace(service.usual, temperature=1.0, answers=answers)
        with Gate(predictor) as gate, service.place() as held, service.place() as first, service.place() as second:
            held.submit(look(service, 0), service.usual)
            assert gate.reached.acquire(timeout=PATIENCE)
            futures = [place.submit(look(service, n), ask) for n, place in enumerate((first, second))]
            gate.open.set()
            assert [len(future.result(PATIENCE)) for future in futures] == [answers, answers]
        assert [len(batch) for batch in gate.batches[1:]] == expected


def _apart(batch):
    kinds = ({"face 0", "face 3", "face 20"}, {"face 1"}, {"face 2", "face 4"}, {"face 5"})
    return [kind for kind in kinds if batch[0] in kind]


def test_beyond_the_places_a_request_is_refused(begin, predictor):
    service = begin(slots=2)
    with service.place(), service.place():
        with pytest.raises(UnavailableError, match="2 places are taken") as refused:
            service.place()
        assert refused.value.code == "queue_full" and 1 <= refused.value.retry_after <= 60
        assert service.taken == 2
    assert service.taken == 0
    assert ask_for(service, 0)[0].status == "ok"


def test_what_nobody_waits_for_is_not_read(begin, predictor):
    service = begin(batch_size=1)
    with Gate(predictor) as gate, service.place() as first, service.place() as second, service.place() as third:
        running = first.submit(look(service, 0), service.usual)
        assert gate.reached.acquire(timeout=PATIENCE)
        left = second.submit(look(service, 1), service.usual)
        kept = third.submit(look(service, 2), service.usual)
        assert left.cancel() and not running.cancel()
        gate.open.set()
        assert [each.result(PATIENCE)[0].image for each in (running, kept)] == ["face 0", "face 2"]
        with pytest.raises(CancelledError):
            left.result()
    assert gate.batches == [["face 0"], ["face 2"]]


def test_the_end_waits_for_what_was_begun(begin, predictor):
    service = begin(batch_size=1)
    with Gate(predictor) as gate, service.place() as first, service.place() as second:
        futures = [place.submit(look(service, n), service.usual) for n, place in enumerate((first, second))]
        assert gate.reached.acquire(timeout=PATIENCE)
        with ThreadPoolExecutor(1) as threads:
            closing = threads.submit(service.close)
            gate.open.set()
            closing.result(PATIENCE)
        assert [future.result(0)[0].status for future in futures] == ["ok", "ok"]
    assert service.status == "stopped"
    with pytest.raises(UnavailableError) as refused:
        service.place()
    assert refused.value.code == "stopped"


def test_a_failing_batch_is_told_and_does_not_end_the_service(begin, predictor, monkeypatch):
    service = begin()

    def fail(*_):
        raise MemoryError("no more")

    with monkeypatch.context() as patch:
        patch.setattr(predictor, "answer", fail)
        with pytest.raises(UnavailableError, match="model failed") as told:
            ask_for(service, 0)
        assert told.value.code == "model_failed" and isinstance(told.value.__cause__, MemoryError)
    assert ask_for(service, 0)[0].status == "ok"


def test_a_model_that_is_not_there(begin):
    def load():
        raise ModelError("nothing here")

    service = begin(load)
    assert service.status == "failed" and str(service.error) == "nothing here"
    with pytest.raises(UnavailableError) as refused:
        service.place()
    assert refused.value.code == "failed"
    with pytest.raises(ValueError, match="at least 1"):
        BatchingService(load, slots=0)


def test_nobody_is_taken_while_the_model_loads(predictor):
    loaded = threading.Event()

    def load():
        assert loaded.wait(PATIENCE)
        return predictor

    service, told = BatchingService(load), threading.Event()
    service.start(lambda _: told.set())
    with pytest.raises(UnavailableError) as refused:
        service.place()
    assert refused.value.code == "loading" and service.status == "loading"
    loaded.set()
    assert told.wait(PATIENCE) and service.status == "ready"
    service.close()


def test_tokens_are_counted_as_the_tokenizer_counts(begin, predictor):
    service = begin()
    (found,) = ask_for(service, 3, replace(service.usual, mode="full"))
    ends = service.token_ends(found.text)
    ids = predictor.bundle.tokenizer(found.text, add_special_tokens=False)["input_ids"]
    assert len(ends) == len(ids) and ends[-1] == len(found.text) and ends == sorted(ends)
    assert predictor.bundle.tokenizer.decode(ids[:9]) == found.text[: ends[8]]
    assert service.prompt_tokens(emotion=True) > service.prompt_tokens(emotion=False) > 40
