from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.studies import bidirectional, imagination
from mbpo_jax.types import Dynamics

HALF, STARTS = 3, 4


def windows():
    """States [7, 4, 1] and actions [6, 4, 1] of a world that adds actions up."""
    action = np.random.default_rng(0).uniform(-1, 1, (2 * HALF, STARTS, 1)).astype(np.float32)
    obs = 10.0 * np.arange(STARTS, dtype=np.float32)[None, :, None]
    return np.concatenate([obs, obs + np.cumsum(action, axis=0)]), action


def run_of(drift_ahead, drift_back):
    """A run whose models are wrong by so much at every step, and say that each is the last."""

    def move(sign, drift):
        def step(key, group, obs, action):
            return obs + sign * action + drift, jnp.zeros(len(obs)), jnp.ones(len(obs), bool)

        return lambda state: Dynamics(step, 2)

    algorithm = SimpleNamespace(dynamics=move(1.0, drift_ahead), backward_dynamics=move(-1.0, drift_back))
    return SimpleNamespace(algorithm=algorithm, state=(), seed=0)


def test_models_that_are_right_have_no_error_in_either_direction():
    errors, exploded = bidirectional.compare(run_of(0.0, 0.0), *windows(), np.ones(1))
    assert exploded == 0.0
    for way in bidirectional.WAYS:
        assert errors[way].shape == (HALF, STARTS)
        np.testing.assert_allclose(errors[way], 0.0, atol=1e-5)


def test_half_of_the_way_in_either_direction_has_half_of_the_drift():
    """Ahead the errors of 2 n steps are d, 2 d, ... 2 n d; in both directions d to n d, twice."""
    errors, _ = bidirectional.compare(run_of(0.5, 0.5), *windows(), np.full(1, 2.0))
    for n in (1, 2, 3):
        np.testing.assert_allclose(errors["forward"][n - 1], 0.25 * (2 * n + 1) / 2, rtol=1e-4)
        np.testing.assert_allclose(errors["bidirectional"][n - 1], 0.25 * (n + 1) / 2, rtol=1e-4)


def test_a_backward_model_that_is_worse_is_counted():
    errors, _ = bidirectional.compare(run_of(0.0, 0.5), *windows(), np.ones(1))
    np.testing.assert_allclose(errors["forward"], 0.0, atol=1e-5)
    np.testing.assert_allclose(errors["bidirectional"][:, 0], 0.5 * 0.5 * np.asarray([1.0, 1.5, 2.0]), rtol=1e-4)


def test_rollouts_that_explode_are_told():
    _, exploded = bidirectional.compare(run_of(0.0, np.inf), *windows(), np.ones(1))
    assert exploded == 1.0


@pytest.mark.parametrize(("num_rows", "running", "why"), [(0, False, "none had been fitted"), (60, True, "under way")])
def test_a_backward_model_that_is_not_fitted_is_refused(num_rows, running, why, monkeypatch):
    """It is fitted after the forward one, and a run can be stopped and saved in between."""
    ahead = SimpleNamespace(fit=SimpleNamespace(num_rows=60, running=False))
    back = SimpleNamespace(fit=SimpleNamespace(num_rows=num_rows, running=running))
    trained = SimpleNamespace(
        algorithm=SimpleNamespace(dynamics=print, backward_dynamics=print),
        state=SimpleNamespace(model=ahead, backward_model=back),
        step=80,
    )
    monkeypatch.setattr(bidirectional, "load_trained", lambda *which: trained)
    with pytest.raises(ValueError, match=f"at step 80 .*{why}"):
        bidirectional.study("run")


def test_a_run_without_a_backward_model_is_refused(monkeypatch):
    trained = SimpleNamespace(algorithm=SimpleNamespace(backward_dynamics=None), run=SimpleNamespace(algorithm="mbpo"))
    monkeypatch.setattr(bidirectional, "load_trained", lambda *which: trained)
    monkeypatch.setattr(imagination, "check", lambda trained: None)
    with pytest.raises(ValueError, match="the run must have a backward model .--algorithm=bmpo., got mbpo"):
        bidirectional.study("run")
