import math

import pytest

from moonseg_jax.time_split import StepClock, shares


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds

    def spend(self, seconds):
        self.seconds += seconds
        return seconds


def test_first_calls_compile_and_count_for_nothing():
    now = Clock()
    clock = StepClock(now)
    rollout, learn = clock.timed("rollout", now.spend), clock.timed("learn", now.spend)
    for step in range(3):
        assert rollout(100.0 if step == 0 else 2.0) == (100.0 if step == 0 else 2.0)
        learn(50.0 if step == 0 else 1.0)
        learn(3.0)
    split = clock.take(3)
    assert split["seconds_rollout"] == pytest.approx(2.0)
    # Two calls a step: five that count, 3 + 1 + 3 + 1 + 3 seconds.
    assert split["seconds_learn"] == pytest.approx(2 * 11 / 5)


def test_a_part_with_nothing_but_its_first_call_is_unknown_and_then_known():
    now = Clock()
    clock = StepClock(now)
    rollout = clock.timed("rollout", now.spend)
    assert clock.take(1) == {}
    rollout(9.0)
    assert math.isnan(clock.take(1)["seconds_rollout"])
    rollout(4.0)
    assert clock.take(2) == {"seconds_rollout": pytest.approx(2.0)}


def test_functions_of_one_part_add_up():
    now = Clock()
    clock = StepClock(now)
    before, update = clock.timed("learn", now.spend), clock.timed("learn", now.spend)
    for _ in range(3):
        before(1.0)
        update(5.0)
    assert clock.take(3)["seconds_learn"] == pytest.approx(6.0)


@pytest.mark.parametrize(("whole", "decode"), [(10.0, 4.0), (5.0, 0.0)])
def test_decoding_gets_what_the_parts_measured_apart_leave(whole, decode):
    now = Clock()
    clock = StepClock(now)
    rollout = clock.timed("rollout", now.spend)
    assert not clock.knows_inside
    clock.set_inside({"encode": 1.0, "prefill": 2.0, "score": 3.0})
    assert clock.knows_inside
    rollout(1.0)
    assert math.isnan(clock.take(1)["seconds_decode"])
    rollout(whole)
    split = clock.take(1)
    assert split["seconds_decode"] == pytest.approx(decode)
    assert (split["seconds_encode"], split["seconds_prefill"], split["seconds_score"]) == (1.0, 2.0, 3.0)


def test_shares_are_said_in_the_order_of_a_step_and_leave_out_what_is_unknown():
    figures = {"seconds_learn": 3.0, "seconds_rollout": 9.0, "seconds_decode": 1.0, "seconds_data": math.nan}
    assert shares(figures) == "decode 25 %  learn 75 %"
    assert shares({"seconds_data": 1.0}) == "" and shares({}) == ""
