"""The classifier of ends: what it learns, how its threshold is chosen, and that it never sees held-out rows."""

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mbpo_jax import health, learner, replay
from mbpo_jax.models import gaussian, learned_termination
from mbpo_jax.models.state import GaussianConfig
from mbpo_jax.types import FINISHED, Spec, Transition

SPEC = Spec(obs_dim=2, action_dim=1)
MODEL = GaussianConfig(
    num_members=2, num_elites=2, model_hidden_units=8, model_weight_decays=(0.0, 0.0), fit_max_gradient_steps=3
)
WORLD = gaussian.build(MODEL, SPEC)
LEARNED = learned_termination.build(WORLD, SPEC)


def rows(num_rows, seed=0, ends=True):
    """Episodes end where the first number of the next observation is above 1.6: about one in twenty."""
    rng = np.random.default_rng(seed)
    obs, next_obs = rng.normal(size=(2, num_rows, 2)).astype(np.float32)
    return Transition(
        obs=obs,
        action=rng.uniform(-1, 1, (num_rows, 1)).astype(np.float32),
        reward=np.zeros(num_rows, np.float32),
        next_obs=next_obs,
        terminal=(ends & (next_obs[:, 0] > 1.6)).astype(np.float32),
    )


FIT = [jax.jit(program) for program in LEARNED.fit.functions]
INIT, ENDS = jax.jit(LEARNED.init), jax.jit(LEARNED.ends)


def fit(real, model, key=1):
    """Runs the fit to its end; returns the model, all metrics, and the programs in order."""
    due, metrics, order = 0, {}, []
    while due != FINISHED:
        model, report = FIT[due](jax.random.key(key), model, real)
        order.append(due)
        metrics |= report.metrics
        assert health.describe(compiled.first_fault(report.watched)) is None
        due = int(LEARNED.fit.due(model))
    return model, metrics, order


@pytest.fixture(scope="module")
def fitted():
    return fit(compiled.filled(SPEC, 3000, rows(3000)), INIT(jax.random.key(0)))


def test_ends_are_learnt_right_after_the_world(fitted):
    model, metrics, order = fitted
    assert order[0] == 0 and order[-1] == 4 and 4 not in order[:-1]
    assert metrics["termination_precision"] > 0.8 and metrics["termination_recall"] > 0.8
    assert metrics["termination_fraction"] == pytest.approx(rows(3000).terminal.mean(), rel=0.3)  # of held-out rows
    new = rows(5000, seed=1)
    called = np.asarray(ENDS(LEARNED.belief(model), new.obs, new.action, new.next_obs))
    right = (called & (new.terminal > 0)).sum()
    assert right / called.sum() > 0.8 and right / new.terminal.sum() > 0.8


def test_the_world_inside_is_the_world_alone(fitted):
    model, _, _ = fitted
    key_world, _ = jax.random.split(jax.random.key(0))
    alone, due = jax.jit(WORLD.init)(key_world), 0
    real = compiled.filled(SPEC, 3000, rows(3000))
    while due != FINISHED:
        alone, _ = jax.jit(WORLD.fit.functions[due])(jax.random.key(1), alone, real)
        due = int(WORLD.fit.due(alone))
    assert jax.tree.all(jax.tree.map(np.array_equal, model.world, alone))


def test_an_observation_that_never_changes_is_not_scaled_so_its_predicted_noise_ends_nothing():
    """The float32 mean of many 0.45 is not 0.45: their spread would be tiny, and the model's noise there enormous."""
    constant = rows(3000)
    constant = constant.replace(obs=constant.obs.copy(), next_obs=constant.next_obs.copy())
    constant.obs[:, 1] = constant.next_obs[:, 1] = 0.45
    model, _, _ = fit(compiled.filled(SPEC, 3000, constant), INIT(jax.random.key(0)))
    assert model.ends.inputs.std[1] == 1.0
    noisy = constant.next_obs + np.float32([0.0, 0.005]) * np.random.default_rng(1).normal(size=(3000, 1))
    known, guessed = (
        np.asarray(ENDS(LEARNED.belief(model), constant.obs, constant.action, jnp.float32(after)))
        for after in (constant.next_obs, noisy)
    )
    assert np.mean(known != guessed) < 0.01


def test_where_nothing_ended_nothing_is_an_end_and_nothing_is_learnt():
    real = compiled.filled(SPEC, 200, rows(200, ends=False))
    before = INIT(jax.random.key(0))
    model, metrics, _ = fit(real, before)
    assert jax.tree.all(jax.tree.map(np.array_equal, model.ends.network, before.ends.network))
    new = rows(1000, seed=1)
    assert not ENDS(LEARNED.belief(model), new.obs, new.action, new.next_obs).any()
    assert metrics["termination_fraction"] == metrics["termination_recall"] == 0


def test_ends_are_learnt_of_a_million_rows_too(monkeypatch):
    """The product of how many rows there are of both kinds need not fit 32 bits: 2 ** 16 of each would make 0."""
    monkeypatch.setattr(learned_termination._Kinds, "count", lambda self, terminal, held_out: jnp.int32(2**16))
    real, ends = compiled.filled(SPEC, 200, rows(200)), INIT(jax.random.key(0)).ends
    parts = learned_termination.Parts(learned_termination.Classifier(4, 1), optax.adam(1e-3))
    params = parts.network.init(jax.random.key(0), jnp.zeros(ends.inputs.mean.shape))["params"]
    ends, _ = learned_termination.fit(
        parts, jax.random.key(1), ends.replace(network=learner.init(parts.optimizer, params)), real
    )
    assert ends.threshold < learned_termination.ABOVE_ALL


def test_nothing_is_an_end_before_the_first_fit():
    new = rows(50)
    belief = LEARNED.belief(INIT(jax.random.key(0)))
    assert not ENDS(belief, new.obs, new.action, new.next_obs).any()


def test_precision_and_recall_by_hand():
    """At 2: 3 of 4 ends, 1 of 5 others; there are 10 times as many others as ends."""
    ended, others = jnp.asarray([1.0, 2.0, 3.0, 4.0]), jnp.asarray([-2.0, -1.0, 0.0, 1.0, 2.5])
    recall, precision = learned_termination.rates(
        jnp.asarray([2.0, 4.0]), ended, others, jnp.asarray(8), jnp.asarray(80)
    )
    np.testing.assert_allclose(recall, [0.75, 0.25])
    np.testing.assert_allclose(precision, [6.0 / (6.0 + 16.0), 1.0])


def held_out(real, terminal, held=True):
    """The rewards of the rows of a kind, which are their numbers."""
    kinds = learned_termination._Kinds(real)
    drawn = kinds.draw(jax.random.key(0), terminal, held, (20 * replay.capacity(real),))
    found = set(np.asarray(drawn.reward).astype(int).tolist()) if int(kinds.count(terminal, held)) else set()
    assert len(found) == int(kinds.count(terminal, held))
    return found


def test_held_out_rows_are_never_learnt_from_and_stay_so_when_the_buffer_wraps(monkeypatch):
    monkeypatch.setattr(learned_termination, "FEW", 0)
    marked = rows(600).replace(reward=np.arange(600, dtype=np.float32))
    number, ends = np.arange(600), marked.terminal > 0.5
    real, sides = replay.init(SPEC, 400), {}
    for start in (0, 200, 400):
        real = compiled.add(real, jax.tree.map(lambda leaf, at=start: leaf[at : at + 200], marked))
        for terminal in (True, False):
            held, learnt = (held_out(real, terminal, side) for side in (True, False))
            inside = (number >= start - 200) & (number < start + 200) & (ends == terminal)
            assert held | learnt == set(number[inside].tolist()) and not held & learnt
            for row in held | learnt:
                assert sides.setdefault(row, row in held) == (row in held)
    assert np.mean(list(sides.values())) == pytest.approx(0.2, abs=0.04)


def test_ends_at_a_regular_distance_are_on_both_sides():
    """Split by the numbers of rows, those of episodes of 10 steps were all learnt from, or all held out."""
    for offset in range(5):
        marked = rows(4000).replace(
            reward=np.arange(4000, dtype=np.float32), terminal=(np.arange(4000) % 10 == offset).astype(np.float32)
        )
        assert 50 < len(held_out(compiled.filled(SPEC, 4000, marked), True)) < 110  # of 400


def test_of_few_rows_of_a_kind_every_fifth_is_held_out():
    terminal = np.zeros(600, np.float32)
    terminal[[10, 20, 30, 40, 50, 60, 70, 80, 90, 100]] = 1.0
    marked = rows(600).replace(reward=np.arange(600, dtype=np.float32), terminal=terminal)
    assert held_out(compiled.filled(SPEC, 600, marked), True) == {50, 100}
