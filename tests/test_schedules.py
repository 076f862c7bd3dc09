import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import pytest

from mbpo_jax import schedules

HOPPER, ANT, HALFCHEETAH = (20, 150, 1, 15), (20, 100, 1, 25), (20, 150, 1, 1)
FIFTHS = (0, 110, 1, 23)  # a step every 5 epochs, which float32 arithmetic misses in places


def exact(epoch, schedule):
    first_epoch, last_epoch, start, end = schedule
    if epoch <= first_epoch:
        return start
    share = min(Fraction(epoch - first_epoch, last_epoch - first_epoch), Fraction(1))
    return math.floor(start + share * (end - start))


@pytest.mark.parametrize(
    ("schedule", "hand_worked"),
    [
        # 14/130 a step: 9 steps make 0.97, 10 make 1.08, 65 exactly 7, 64 make 6.89, 129 make 13.89
        (HOPPER, {0: 1, 20: 1, 21: 1, 29: 1, 30: 2, 84: 7, 85: 8, 149: 14, 150: 15, 151: 15, 10_000: 15}),
        # 0.3 a step: 3 steps make 0.9, 4 make 1.2, 9 make 2.7, 10 exactly 3, 79 make 23.7
        (ANT, {0: 1, 20: 1, 23: 1, 24: 2, 29: 3, 30: 4, 99: 24, 100: 25, 101: 25}),
        (HALFCHEETAH, {0: 1, 85: 1, 150: 1, 1000: 1}),
        ((3, 3, 2, 9), {0: 2, 3: 2, 4: 9, 5: 9}),  # a jump
    ],
)
def test_hand_worked(variant, schedule, hand_worked):
    length = variant(lambda epoch: schedules.linear_int(epoch, schedule))
    assert {epoch: int(length(jnp.int32(epoch))) for epoch in hand_worked} == hand_worked


@pytest.mark.parametrize(
    "schedule", [HOPPER, ANT, HALFCHEETAH, (0, 1, 1, 2), FIFTHS, (0, 200, 1, 200), (7, 190, 3, 24)]
)
def test_every_epoch_is_the_exact_rational_rounded_down_from_one_trace(schedule):
    traces = []

    @jax.jit
    def length(epoch):
        traces.append(epoch)
        return schedules.linear_int(epoch, schedule)

    for epoch in range(-1, 201):  # -1: while exploring
        answer = length(jnp.int32(epoch))
        assert answer.shape == ()
        assert answer.dtype == jnp.int32
        assert int(answer) == exact(epoch, schedule), epoch
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("exponent", "hand_worked"),
    [
        (1.0, {0: 0.0, 25: -0.5, 50: -1.0, 100: -2.0, 1000: -2.0}),
        (2.0, {0: 0.0, 50: -1.5, 75: -1.875, 100: -2.0}),  # 2 (1/2)^2 - 2, 2 (1/4)^2 - 2
        (0.5, {0: 0.0, 75: -1.0, 100: -2.0}),  # 2 sqrt(1/4) - 2: most of the way is left to the end
        (0.0, {0: 0.0, 99: 0.0, 100: -2.0}),
    ],
)
def test_a_power_leads_from_0_to_minus_2_in_100_steps(variant, exponent, hand_worked):
    power = variant(schedules.power, static_argnums=(1, 2, 3, 4))
    found = {step: float(power(jnp.int32(step), 100, 0.0, -2.0, exponent)) for step in hand_worked}
    assert found == pytest.approx(hand_worked, abs=1e-6)
