import io

import pytest
from rich.console import Console

from moonseg_jax.progress import Progress, Rate, duration


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


def run(console, clock, steps, seconds_per_step, **settings):
    with Progress("rl", steps, console=console, clock=clock, **settings) as progress:
        for step in range(1, steps + 1):
            clock.seconds += seconds_per_step
            progress.update(step, {"iou": 0.51234})
    return console.file.getvalue()


def test_a_log_gets_the_first_the_last_and_a_line_now_and_then():
    text = run(Console(file=io.StringIO(), width=200), Clock(), 100, 1.0, plain_seconds=30)
    shown = [line.split()[1] for line in text.splitlines()]
    assert shown == ["1/100", "31/100", "61/100", "91/100", "100/100"]
    assert text.splitlines()[1] == "rl: 31/100  1.00/s  1:09 min left  iou 0.5123"


def test_a_terminal_gets_a_live_bar_with_metrics():
    console = Console(file=io.StringIO(), width=200, force_terminal=True, legacy_windows=False)
    text = run(console, Clock(), 4, 2.0)
    assert "4/4" in text and "2.0 s/step" in text and "iou 0.5123" in text
    assert "\x1b[?25l" in text, "the cursor is hidden only by a live display"


def test_other_processes_stay_silent():
    assert run(Console(file=io.StringIO()), Clock(), 3, 100.0, enabled=False) == ""


def test_a_note_is_printed_as_it_is():
    console = Console(file=io.StringIO(), width=20)
    with Progress("sft", 10, console=console) as progress:
        progress.note("held-out [miou] .52, checkpoint in runs/a/b/c")
    assert console.file.getvalue() == "sft: held-out [miou] .52, checkpoint in runs/a/b/c\n"


def test_the_rate_forgets_a_slow_start():
    rate = Rate()
    rate.mark(0, 0)
    rate.mark(100, 1)
    for second in range(101, 201):
        rate.mark(second, (second - 100) * 2)
    assert rate.per_second() == pytest.approx(2.0)


def test_there_is_no_rate_before_the_first_step():
    rate = Rate()
    rate.mark(5, 7)
    assert rate.per_second() is None


@pytest.mark.parametrize(("seconds", "said"), [(42.4, "42 s"), (185, "3:05 min"), (7620, "2:07 h"), (59.7, "1:00 min")])
def test_durations_are_said_as_a_person_says_them(seconds, said):
    assert duration(seconds) == said


def test_what_is_not_known_is_a_dash_and_the_rest_stands_at_the_end():
    console = Console(file=io.StringIO(), width=200)
    with Progress("rl", 2, console=console, clock=Clock()) as progress:
        progress.update(1, {"iou_small": float("nan"), "reward": 0.5}, "decode 48 %  learn 52 %")
    assert console.file.getvalue() == "rl: 1/2  iou_small –  reward 0.5  decode 48 %  learn 52 %\n"
