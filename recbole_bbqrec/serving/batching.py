"""Requests that arrive together are answered together: one thread ranks, the others wait."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, NamedTuple, TypeVar

Asked = TypeVar("Asked")
Given = TypeVar("Given")


class _Waiting(NamedTuple):
    group: Hashable
    question: Any
    future: Future[Any]


class Batcher(Generic[Asked, Given]):
    """Answers questions in batches on a thread of its own.

    While a batch is answered the next questions gather: a busy service fills its batches, and an
    idle one answers at once.

    Args:
        answer: answers a list of questions of one group, in order.
        group: what questions that can be answered together have in common.
        largest: most questions of a batch.
        observe: called with the size of every batch.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Asked]], Sequence[Given]],
        group: Callable[[Asked], Hashable],
        largest: int = 128,
        observe: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._answer, self._group, self._largest = answer, group, largest
        self._observe = observe
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="ranking", daemon=True)
        self._thread.start()

    def submit(self, question: Asked) -> Future[Given]:
        """Return the answer to come; it has the exception, if answering raises one."""
        future: Future[Given] = Future()
        self._waiting.put(_Waiting(self._group(question), question, future))
        return future

    def close(self) -> None:
        """Answer what is waiting, and end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        pending: list[_Waiting] = []
        closing = False
        while not (closing and not pending):
            try:
                while len(pending) < 4 * self._largest:
                    one = self._waiting.get(block=not pending and not closing)
                    closing = closing or one is None
                    if one is not None:
                        pending.append(one)
                    elif not pending:
                        break
            except queue.Empty:
                pass
            if not pending:
                continue
            group = pending[0].group
            batch = [one for one in pending if one.group == group][: self._largest]
            chosen = {id(one) for one in batch}
            pending = [one for one in pending if id(one) not in chosen]
            batch = [one for one in batch if one.future.set_running_or_notify_cancel()]
            if batch:
                self._observe(len(batch))
                self._give(batch)

    def _give(self, batch: Sequence[_Waiting]) -> None:
        try:
            answers = self._answer([one.question for one in batch])
        except BaseException as error:  # the thread must live on: whoever waits gets the error
            for one in batch:
                one.future.set_exception(error)
            return
        for one, answer in zip(batch, answers):
            one.future.set_result(answer)
