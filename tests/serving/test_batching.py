"""Questions that wait together are answered together, each group by itself."""

from __future__ import annotations

import threading

import pytest

from recbole_bbqrec.serving.batching import Batcher


@pytest.fixture
def gate():
    return threading.Event()


def test_what_gathers_while_a_batch_runs_is_one_batch_a_group(gate):
    batches = []

    def answer(questions):
        batches.append(list(questions))
        gate.wait(10)
        return [question * 2 for question in questions]

    batcher = Batcher(answer, lambda question: question % 2, largest=3)
    futures = [batcher.submit(0)]
    while not batches:
        pass
    futures += [batcher.submit(number) for number in range(1, 9)]
    gate.set()
    assert [future.result(10) for future in futures] == [2 * number for number in range(9)]
    assert batches[0] == [0] and all(len({n % 2 for n in batch}) == 1 for batch in batches)
    assert sorted(map(len, batches[1:])) == [1, 1, 3, 3]
    batcher.close()


def test_an_error_reaches_those_who_asked_and_the_thread_lives_on():
    def answer(questions):
        if "bad" in questions:
            raise ValueError("bad")
        return questions

    batcher = Batcher(answer, lambda question: question)
    with pytest.raises(ValueError, match="bad"):
        batcher.submit("bad").result(10)
    assert batcher.submit("good").result(10) == "good"
    batcher.close()


def test_closing_answers_what_waits(gate):
    def answer(questions):
        gate.wait(10)
        return questions

    batcher = Batcher(answer, lambda question: 0, largest=2)
    futures = [batcher.submit(number) for number in range(5)]
    gate.set()
    batcher.close()
    assert [future.result(0) for future in futures] == list(range(5))
