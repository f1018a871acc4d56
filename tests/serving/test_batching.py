"""Batched inference: each request gets its own answer, none is lost, and the queue is bounded."""

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest

from semanticface.errors import ModelError
from semanticface.inference.predictor import Predictor, PreparedFace
from semanticface.serving.batching import BatchingService, UnavailableError
from tests.helpers.same_answers import assert_same_answers
from tests.helpers.served import TIMEOUT, Gate, crops, png


@pytest.fixture(scope="module")
def predictor():
    return Predictor.from_pretrained("nano", device="cpu", mode="numbers")


@pytest.fixture
def start(predictor):
    """Start services and close them after the test."""
    started = []

    def start(load=lambda: predictor, **settings):
        service, loaded = BatchingService(load, **settings), threading.Event()
        started.append(service)
        service.start(lambda _: loaded.set())
        assert loaded.wait(TIMEOUT)
        return service

    yield start
    for service in started:
        service.close()


def face(service, number, count=24):
    prepared = service.prepare(png(crops(count)[number]), "none", f"face {number}")
    assert isinstance(prepared, PreparedFace)
    return prepared


def read(service, number, options=None):
    with service.acquire_slot() as slot:
        return slot.submit(face(service, number), options or service.defaults).result(TIMEOUT)


def test_each_of_many_threads_gets_its_own_answer(start, predictor):
    expected = predictor(crops(24), crop="none")
    service = start(batch_size=5)
    with Gate(predictor) as gate:
        gate.open.set()
        with ThreadPoolExecutor(12) as threads:
            found = list(threads.map(lambda number: read(service, number), range(24)))
    assert [each.image for (each,) in found] == [f"face {number}" for number in range(24)]
    assert_same_answers([each.text for (each,) in found], [each.text for each in expected])
    assert len({each.text for (each,) in found}) == 24
    assert sorted(chain(*gate.batches)) == sorted(f"face {number}" for number in range(24))
    assert max(map(len, gate.batches)) <= 5
    for (each,), direct in zip(found, expected, strict=True):
        np.testing.assert_allclose(each.mean, direct.mean, atol=1e-5)


def test_a_batch_waits_only_for_slots_without_a_job(start, predictor):
    service = start(wait=TIMEOUT)
    assert read(service, 0)[0].status == "ok"  # a lone request would time out if it waited
    with Gate(predictor) as gate, service.acquire_slot() as first, service.acquire_slot() as second:
        gate.open.set()
        early = first.submit(face(service, 1), service.defaults)
        with service.acquire_slot():  # released without a job
            pass
        late = second.submit(face(service, 2), service.defaults)
        assert [each.result(TIMEOUT)[0].image for each in (early, late)] == ["face 1", "face 2"]
    assert gate.batches == [["face 1", "face 2"]]


def test_different_options_do_not_share_a_batch(start, predictor):
    service = start()
    numbers = service.defaults
    full = replace(numbers, mode="full", emotion=False)
    sampled = replace(numbers, temperature=1.0, seed=7, answers=3)
    options = [numbers, full, sampled, numbers, sampled, replace(sampled, seed=8)]
    with Gate(predictor) as gate, ThreadPoolExecutor(len(options) + 1) as threads:
        first = threads.submit(read, service, 20)
        assert gate.reached.acquire(timeout=TIMEOUT)
        futures = [threads.submit(read, service, number, each) for number, each in enumerate(options)]
        gate.open.set()
        found = [future.result() for future in futures]
        first.result()
    assert all(set(batch) <= part for batch in gate.batches for part in _equal_options(batch))
    with_analysis = Predictor(predictor.bundle, mode="full", emotion=False)
    assert found[1][0].analysis == with_analysis([crops(24)[1]], crop="none")[0].analysis
    assert "emotional_implication" not in found[1][0].text
    for number in (2, 4, 5):
        alone = predictor([crops(24)[number]], crop="none", temperature=1.0, seed=options[number].seed, answers=3)
        assert [each.text for each in found[number]] == [each.text for each in alone]


def test_each_sample_is_a_row_of_the_batch(start, predictor):
    service = start(batch_size=4)
    for answers, expected in ((3, [1, 1]), (2, [2])):
        options = replace(service.defaults, temperature=1.0, answers=answers)
        with (
            Gate(predictor) as gate,
            service.acquire_slot() as held,
            service.acquire_slot() as first,
            service.acquire_slot() as second,
        ):
            held.submit(face(service, 0), service.defaults)
            assert gate.reached.acquire(timeout=TIMEOUT)
            futures = [slot.submit(face(service, n), options) for n, slot in enumerate((first, second))]
            gate.open.set()
            assert [len(future.result(TIMEOUT)) for future in futures] == [answers, answers]
        assert [len(batch) for batch in gate.batches[1:]] == expected


def _equal_options(batch):
    kinds = ({"face 0", "face 3", "face 20"}, {"face 1"}, {"face 2", "face 4"}, {"face 5"})
    return [kind for kind in kinds if batch[0] in kind]


def test_a_request_without_a_free_slot_is_refused(start, predictor):
    service = start(slots=2)
    with service.acquire_slot(), service.acquire_slot():
        with pytest.raises(UnavailableError, match="2 slots are in use") as refused:
            service.acquire_slot()
        assert refused.value.code == "queue_full" and 1 <= refused.value.retry_after <= 60
        assert service.slots_taken == 2
    assert service.slots_taken == 0
    assert read(service, 0)[0].status == "ok"


def test_a_cancelled_job_is_not_read(start, predictor):
    service = start(batch_size=1)
    with (
        Gate(predictor) as gate,
        service.acquire_slot() as first,
        service.acquire_slot() as second,
        service.acquire_slot() as third,
    ):
        running = first.submit(face(service, 0), service.defaults)
        assert gate.reached.acquire(timeout=TIMEOUT)
        left = second.submit(face(service, 1), service.defaults)
        kept = third.submit(face(service, 2), service.defaults)
        assert left.cancel() and not running.cancel()
        gate.open.set()
        assert [each.result(TIMEOUT)[0].image for each in (running, kept)] == ["face 0", "face 2"]
        with pytest.raises(CancelledError):
            left.result()
    assert gate.batches == [["face 0"], ["face 2"]]


def test_close_finishes_submitted_jobs(start, predictor):
    service = start(batch_size=1)
    with Gate(predictor) as gate, service.acquire_slot() as first, service.acquire_slot() as second:
        futures = [slot.submit(face(service, n), service.defaults) for n, slot in enumerate((first, second))]
        assert gate.reached.acquire(timeout=TIMEOUT)
        with ThreadPoolExecutor(1) as threads:
            closing = threads.submit(service.close)
            gate.open.set()
            closing.result(TIMEOUT)
        assert [future.result(0)[0].status for future in futures] == ["ok", "ok"]
    assert service.status == "stopped"
    with pytest.raises(UnavailableError) as refused:
        service.acquire_slot()
    assert refused.value.code == "stopped"


def test_a_failed_batch_is_reported_and_does_not_end_the_service(start, predictor, monkeypatch):
    service = start()

    def fail(*_):
        raise MemoryError("no more")

    with monkeypatch.context() as patch:
        patch.setattr(predictor, "answer", fail)
        with pytest.raises(UnavailableError, match="model failed") as failure:
            read(service, 0)
        assert failure.value.code == "model_failed" and isinstance(failure.value.__cause__, MemoryError)
    assert read(service, 0)[0].status == "ok"


def test_a_model_that_does_not_load(start):
    def load():
        raise ModelError("nothing here")

    service = start(load)
    assert service.status == "failed" and str(service.error) == "nothing here"
    with pytest.raises(UnavailableError) as refused:
        service.acquire_slot()
    assert refused.value.code == "failed"
    with pytest.raises(ValueError, match="at least 1"):
        BatchingService(load, slots=0)


def test_no_slot_is_given_while_the_model_loads(predictor):
    loaded = threading.Event()

    def load():
        assert loaded.wait(TIMEOUT)
        return predictor

    service, done = BatchingService(load), threading.Event()
    service.start(lambda _: done.set())
    with pytest.raises(UnavailableError) as refused:
        service.acquire_slot()
    assert refused.value.code == "loading" and service.status == "loading"
    loaded.set()
    assert done.wait(TIMEOUT) and service.status == "ready"
    service.close()


def test_token_counts_match_the_tokenizer(start, predictor):
    service = start()
    (found,) = read(service, 3, replace(service.defaults, mode="full"))
    ends = service.token_ends(found.text)
    ids = predictor.bundle.tokenizer(found.text, add_special_tokens=False)["input_ids"]
    assert len(ends) == len(ids) and ends[-1] == len(found.text) and ends == sorted(ends)
    assert predictor.bundle.tokenizer.decode(ids[:9]) == found.text[: ends[8]]
    assert service.prompt_tokens(emotion=True) > service.prompt_tokens(emotion=False) > 40
