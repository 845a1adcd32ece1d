"""Questions at gates that take longer than memory: each in a thread of its own, bounded by gate, one a credential.

A gate asks again with the same credential ("one moment") until its question is answered. A question that is not asked
again was abandoned: it gives its place to the next one, and its answer, if one comes, is dropped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

# A gate repeats its question several times a second; one that has been silent for this long has given up, or its
# customer has to show the credential again by hand.
SHOWN_MAX_S = 3.0
# An answer waits this long for a customer who shows the credential again by hand.
KEPT_S = 30.0
# Threads that one gate's live questions take at once, and its questions that wait: more people than can stand there.
THREADS_PER_GATE, PER_GATE_MAX = 32, 64
# Threads of all questions, abandoned ones included, whose providers still hang.
THREADS_MAX = 256

Answer = TypeVar("Answer")
# What a question is about, which also says who may take the answer.
Key = tuple[str, ...]


class Question(Generic[Answer]):
    """A question under way.

    Attributes:
        gate: where it is asked.
        asked_s: when it was asked first.
        shown_s: when the gate asked for its answer last.
        done: set while it is not being asked: there is an answer, or none could be had.
    """

    def __init__(self, gate: str, ask: Callable[[], Answer | None], now_s: float) -> None:
        self.gate, self.asked_s, self.shown_s = gate, now_s, now_s
        self.done = threading.Event()
        self.ask = ask
        self.running = False
        self.answer: Answer | None = None
        self.error: Exception | None = None

    @property
    def has_answer(self) -> bool:
        """Whether there is an answer, or asking has failed."""
        return self.answer is not None or self.error is not None

    def result(self) -> Answer | None:
        """The answer. Raises what asking has raised."""
        if self.error is not None:
            raise self.error
        return self.answer


class Questions(Generic[Answer]):
    """The questions of one kind at all gates. May be used from several threads."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._questions: dict[Key, Question[Answer]] = {}
        self._n_threads = 0

    def __len__(self) -> int:
        return len(self._questions)

    def again(self, key: Key) -> Question[Answer] | None:
        """Ask for the answer to a question once more; None where none is under way."""
        with self._lock:
            question = self._questions.get(key)
            if question is not None:
                self._show(question, self._monotonic_s())
            return question

    def ask(self, key: Key, gate: str, ask: Callable[[], Answer | None]) -> Question[Answer] | None:
        """The question about something, begun where it is not under way. None: the gate has too many already.

        Args:
            key: what it is about, and who asks.
            gate: where.
            ask: asks, in another thread; returns None where no answer can be had yet, and is called again then.
        """
        now_s = self._monotonic_s()
        with self._lock:
            question = self._questions.get(key)
            if question is None:
                self._forget(now_s)
                if not self._has_place(gate, now_s):
                    return None
                question = self._questions[key] = Question(gate, ask, now_s)
            self._show(question, now_s)
            return question

    def _show(self, question: Question[Answer], now_s: float) -> None:
        """Note that a gate waits for an answer, and give the question a thread where it has none and one is free."""
        question.shown_s = now_s
        if not question.running and not question.has_answer and self._has_thread(question.gate, now_s):
            question.running = True
            question.done.clear()
            self._n_threads += 1
            threading.Thread(target=self._run, args=(question,), name=f"gate {question.gate}", daemon=True).start()

    def take(self, key: Key, question: Question[Answer]) -> bool:
        """End a question; of several that wait for its answer, one gets True."""
        with self._lock:
            if self._questions.get(key) is not question:
                return False
            del self._questions[key]
            return True

    def age_s(self, question: Question[Answer]) -> float:
        """How long ago a question was asked first."""
        return self._monotonic_s() - question.asked_s

    def _run(self, question: Question[Answer]) -> None:
        try:
            question.answer = question.ask()
        except Exception as error:
            question.error = error
        with self._lock:
            question.running = False
            self._n_threads -= 1
            question.done.set()

    def _forget(self, now_s: float) -> None:
        for key, question in list(self._questions.items()):
            if now_s - question.shown_s > KEPT_S:
                del self._questions[key]

    def _has_place(self, gate: str, now_s: float) -> bool:
        """Whether a gate may ask one more; the question that was shown longest ago makes room if it was abandoned."""
        others = [(question.shown_s, key) for key, question in self._questions.items() if question.gate == gate]
        if len(others) < PER_GATE_MAX:
            return True
        shown_s, key = min(others)
        if now_s - shown_s <= SHOWN_MAX_S:
            return False
        del self._questions[key]
        return True

    def _has_thread(self, gate: str, now_s: float) -> bool:
        """Whether one more thread may run for a gate. The threads of abandoned questions do not count against it."""
        n_live = sum(
            question.running and question.gate == gate and now_s - question.shown_s <= SHOWN_MAX_S
            for question in self._questions.values()
        )
        return n_live < THREADS_PER_GATE and self._n_threads < THREADS_MAX
