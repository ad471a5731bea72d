"""The states of worker processes, driven by Hypothesis: every order of events, at times of its choosing."""

from __future__ import annotations

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.examples import examples

from sar_infer.server.model.supervisor import PAUSE, Supervisor


class Machine(RuleBasedStateMachine):
    """A supervisor whose workers are numbers, and what must hold after each event."""

    @initialize(count=st.integers(1, 4))
    def begin(self, count: int) -> None:
        self.now = 0.0
        self.supervisor: Supervisor[int] = Supervisor(count)
        self.numbers = itertools.count()
        self.busy: set[int] = set()
        self.starting = 0
        self.failed = float("-inf")
        self.act()

    def act(self) -> None:
        """Start what the supervisor asks for, as its owner does after every event."""
        number = self.supervisor.start(self.now)
        missing = self.supervisor.count - len(self.supervisor.ready) - self.starting
        none_left = missing == self.supervisor.count and self.supervisor.fault is None
        assert number == (missing if none_left or self.now >= self.failed + PAUSE else 0)
        self.starting += number

    @precondition(lambda self: self.starting)
    @rule()
    def becomes_ready(self) -> None:
        self.starting -= 1
        self.supervisor.started(next(self.numbers))
        assert self.supervisor.fault is None
        self.act()

    @precondition(lambda self: self.starting)
    @rule()
    def does_not_start(self) -> None:
        self.starting -= 1
        self.failed = self.now
        self.supervisor.not_started("no", self.now)
        assert self.supervisor.ready or self.starting or self.supervisor.fault is not None
        self.act()

    @rule()
    def a_batch_comes(self) -> None:
        idle = set(self.supervisor.ready) - self.busy
        worker = self.supervisor.take()
        if not idle:
            assert worker is None
        else:
            assert worker in idle
            self.busy.add(worker)

    @precondition(lambda self: self.busy)
    @rule(data=st.data())
    def answers(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.busy)))
        self.busy.remove(worker)
        self.supervisor.answered(worker)
        self.act()

    @precondition(lambda self: self.supervisor.ready)
    @rule(data=st.data())
    def ends(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.supervisor.ready)))
        self.busy.discard(worker)
        self.supervisor.gone(worker)
        self.act()

    @rule(seconds=st.sampled_from([0.1, PAUSE / 2, PAUSE, 3 * PAUSE]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.act()

    @invariant()
    def counts_are_right(self) -> None:
        supervisor = self.supervisor
        assert supervisor.starting == self.starting
        assert len(supervisor.ready) + self.starting <= supervisor.count
        assert {worker for worker, ready in supervisor.ready.items() if ready == "busy"} == self.busy

    def teardown(self) -> None:
        """All workers are there again, whatever has happened, once they start and time has passed."""
        if not hasattr(self, "supervisor"):
            return
        self.now += PAUSE
        self.act()
        while self.starting:
            self.becomes_ready()
        assert len(self.supervisor.ready) == self.supervisor.count
        assert self.supervisor.fault is None


TestStates = Machine.TestCase
TestStates.settings = settings(max_examples=examples(500), stateful_step_count=60)
