import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from plain import SPEC, batch_of, fault_of, fault_text, q_of

from mbpo_jax import distributions, health
from mbpo_jax.agents import critics as shared
from mbpo_jax.agents import sac


def test_soft_target_by_hand():
    target = sac.soft_target(
        reward=jnp.float32([1.0, 2.0]),
        terminal=jnp.float32([0.0, 1.0]),
        next_q=jnp.float32([[5.0, 100.0], [4.0, 200.0]]),
        next_log_prob=jnp.float32([-1.5, 3.0]),
        temperature=jnp.float32(0.2),
        discount=0.9,
    )
    # 1 + 0.9 * (min(5, 4) + 0.2 * 1.5) = 4.87; a terminal row is worth its reward, whatever follows
    np.testing.assert_allclose(target, [4.87, 2.0], rtol=1e-6)


def test_losses_by_hand():
    q, target = jnp.float32([[1.0, 2.0], [3.0, 4.0]]), jnp.float32([2.0, 0.0])
    # 0.5 * (1 + 4) / 2 + 0.5 * (1 + 16) / 2
    assert float(shared.loss(q, target)) == pytest.approx(1.25 + 4.25)
    # mean of 0.5 * [1, -1] - [1, 2]
    assert float(sac.actor_loss(q, jnp.float32([1.0, -1.0]), 0.5)) == pytest.approx(-1.5)
    # log_prob mean 1, target entropy -3: -2 * (1 - 3)
    assert float(sac.temperature_loss(jnp.float32(2.0), jnp.float32([0.5, 1.5]), -3.0)) == pytest.approx(4.0)


@pytest.mark.parametrize("name", ["reward", "terminal", "next_log_prob"])
def test_a_column_where_a_row_belongs_is_refused(name):
    """[B, 1] against [B] would silently make [B, B]."""
    row, q = jnp.ones(3), jnp.ones((2, 3))
    arrays = {"reward": row, "terminal": row, "next_log_prob": row}
    assert sac.soft_target(**arrays, next_q=q, temperature=1.0, discount=0.9).shape == (3,)
    with pytest.raises(AssertionError, match=r"\(3, 1\)"):
        sac.soft_target(**arrays | {name: row[:, None]}, next_q=q, temperature=1.0, discount=0.9)
    with pytest.raises(AssertionError, match=r"\(3, 1\)"):
        shared.loss(q, row[:, None])
    with pytest.raises(AssertionError, match=r"\(3, 1\)"):
        sac.actor_loss(q, row[:, None], 0.5)


def dense(params, x):
    for name in sorted(params)[:-1]:
        x = jnp.maximum(x @ params[name]["kernel"] + params[name]["bias"], 0.0)
    last = params[sorted(params)[-1]]
    return x @ last["kernel"] + last["bias"]


def policy(params, obs, noise):
    mean, log_std = jnp.split(dense(params["_Mlp_0"], obs), 2, -1)
    return distributions.tanh_gaussian(mean, jnp.clip(log_std, -20, 2), noise)


def critics(params, obs, action):
    x = jnp.concatenate([obs, action], -1)
    return jnp.stack([dense(jax.tree.map(lambda leaf, m=m: leaf[m], params["_Mlp_0"]), x)[:, 0] for m in range(2)])


ADAM = optax.adam(1e-2)


@jax.jit
def written_out_update(pi, q, target_q, log_alpha, moments, b, noise, next_noise):
    """One update of SAC with two critics, step size 1e-2 and target_update_rate 0.1, as the algorithm is written."""
    alpha, (opt_pi, opt_q, opt_alpha) = jnp.exp(log_alpha), moments
    next_action, next_log_prob = policy(pi, b.next_obs, next_noise)
    next_value = critics(target_q, b.next_obs, next_action).min(0) - alpha * next_log_prob
    y = b.reward + 0.99 * (1 - b.terminal) * next_value

    def q_loss(p):
        values = critics(p, b.obs, b.action)
        return 0.5 * ((values - y) ** 2).mean(1).sum(), values.mean()

    def pi_loss(p):
        action, log_prob = policy(p, b.obs, noise)
        return (alpha * log_prob - critics(q, b.obs, action).min(0)).mean(), log_prob

    (critic_loss, q_mean), grad_q = jax.value_and_grad(q_loss, has_aux=True)(q)
    (actor_loss, log_prob), grad_pi = jax.value_and_grad(pi_loss, has_aux=True)(pi)
    numbers = critic_loss, actor_loss, q_mean, -log_prob.mean(), alpha
    grad_alpha = -(log_prob + -2.0).mean()
    update, opt_q = ADAM.update(grad_q, opt_q)
    q = optax.apply_updates(q, update)
    update, opt_pi = ADAM.update(grad_pi, opt_pi)
    pi = optax.apply_updates(pi, update)
    update, opt_alpha = ADAM.update(grad_alpha, opt_alpha)
    target_q = jax.tree.map(lambda new, old: 0.1 * new + 0.9 * old, q, target_q)
    return (pi, q, target_q, log_alpha + update, (opt_pi, opt_q, opt_alpha)), numbers


def test_three_updates_equal_the_algorithm_written_out():
    """Each update takes every gradient at the parameters before it; noise and batches are the same."""
    config = sac.SacConfig(hidden_units=16, learning_rate=1e-2, target_update_rate=0.1, initial_temperature=0.5)
    agent, batches = sac.build(config, SPEC), batch_of(3, 32)
    state = jax.jit(agent.init)(jax.random.key(0))
    after, report = jax.jit(agent.update)(jax.random.key(4), state, batches)
    key_action, key_next = jax.random.split(jax.random.key(4))
    noise, next_noise = jax.random.normal(key_action, (3, 32, 2)), jax.random.normal(key_next, (3, 32, 2))

    pi, q, target_q = state.actor.params, state.critics.params, state.target_params
    log_alpha = jnp.log(jnp.float32(0.5))
    moments = ADAM.init(pi), ADAM.init(q), ADAM.init(log_alpha)

    by_hand = []
    for g in range(3):
        b = jax.tree.map(lambda leaf, g=g: leaf[g], batches)
        (pi, q, target_q, log_alpha, moments), numbers = written_out_update(
            pi, q, target_q, log_alpha, moments, b, noise[g], next_noise[g]
        )
        by_hand.append(numbers)

    for got, want in ((after.actor.params, pi), (after.critics.params, q), (after.target_params, target_q)):
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
            np.testing.assert_allclose(a, b, atol=2e-5)
    assert float(after.log_temperature.params) == pytest.approx(float(log_alpha), abs=1e-5)
    names = ("critic_loss", "actor_loss", "q_mean", "entropy", "temperature")
    np.testing.assert_allclose([report.metrics[name] for name in names], np.mean(by_hand, 0), rtol=1e-4)


def test_targets_and_twins_start_as_they_should():
    state = jax.jit(sac.build(sac.SacConfig(), SPEC).init)(jax.random.key(0))
    for a, b in zip(jax.tree.leaves(state.critics.params), jax.tree.leaves(state.target_params)):
        np.testing.assert_array_equal(a, b)
    kernel = np.asarray(state.critics.params["_Mlp_0"]["Dense_0"]["kernel"])
    assert kernel.shape == (2, 5, 256)
    assert not np.allclose(kernel[0], kernel[1])


def test_deterministic_actions_are_the_squashed_mean_and_exploring_ones_spread_around_it():
    agent = sac.build(sac.SacConfig(hidden_units=16), SPEC)
    state, obs = jax.jit(agent.init)(jax.random.key(0)), jnp.tile(jnp.float32([[0.3, -1.0, 2.0]]), (4000, 1))
    mean, log_std = jnp.split(dense(state.actor.params["_Mlp_0"], obs), 2, -1)
    calm = agent.act(jax.random.key(1), agent.actor(state), obs, False)
    np.testing.assert_allclose(calm, jnp.tanh(mean), atol=1e-6)
    wild = np.asarray(agent.act(jax.random.key(1), agent.actor(state), obs, True))
    assert np.abs(wild).max() <= 1.0
    noise = jax.random.normal(jax.random.key(1), mean.shape)
    np.testing.assert_allclose(wild, jnp.tanh(mean + jnp.exp(log_std) * noise), atol=1e-5)
    assert np.abs(log_std).min() > 1e-3  # so that its exponential is not 1
    assert wild.std(0).min() > 0.3
    np.testing.assert_allclose(np.median(np.arctanh(wild), 0), mean[0], atol=0.1)


def test_the_entropy_bonus_is_what_targets_add_for_the_next_action():
    """Its mean is temperature * entropy, here by numbers: -log of a normal density, and the log of tanh's slope."""
    agent = sac.build(sac.SacConfig(hidden_units=16, initial_temperature=0.3), SPEC)
    state, obs = jax.jit(agent.init)(jax.random.key(0)), jnp.tile(jnp.float32([[0.3, -1.0, 2.0]]), (20_000, 1))
    mean, log_std = (
        np.asarray(part, np.float64) for part in jnp.split(dense(state.actor.params["_Mlp_0"], obs), 2, -1)
    )
    assert -5.0 < log_std.min()
    assert log_std.max() < 2.0  # no bound touches it
    noise = np.random.default_rng(0).normal(size=mean.shape)
    log_density = -0.5 * noise**2 - log_std - 0.5 * np.log(2.0 * np.pi)
    log_slope = np.log(1.0 - np.tanh(mean + np.exp(log_std) * noise) ** 2)
    action, bonus = map(np.asarray, agent.critic.target_action(jax.random.key(1), state, obs))
    np.testing.assert_array_equal(action, agent.act(jax.random.key(1), agent.actor(state), obs, True))
    assert bonus.shape == (20_000,)
    assert bonus.mean() == pytest.approx(-0.3 * (log_density - log_slope).sum(-1).mean(), abs=0.01)
    assert bonus.std() > 0.1  # each row has noise of its own


def test_q_values_are_of_the_critics_and_not_of_their_targets():
    agent = sac.build(sac.SacConfig(hidden_units=16), SPEC)
    state, rows = jax.jit(agent.init)(jax.random.key(0)), jax.tree.map(lambda leaf: leaf[0], batch_of(1, 4))
    before = agent.critic.q_values(state, rows.obs, rows.action)
    assert before.shape == (2, 4)
    np.testing.assert_allclose(
        before, [q_of(state.critics.params, m, rows.obs, rows.action) for m in (0, 1)], rtol=1e-5
    )
    elsewhere = state.replace(target_params=jax.tree.map(jnp.zeros_like, state.target_params))
    np.testing.assert_array_equal(agent.critic.q_values(elsewhere, rows.obs, rows.action), before)


@pytest.mark.parametrize(("target_entropy", "direction"), [(-50.0, -1), (50.0, 1)])
def test_temperature_moves_the_entropy_towards_its_target(target_entropy, direction):
    agent = sac.build(sac.SacConfig(hidden_units=16, target_entropy=target_entropy), SPEC)
    state = jax.jit(agent.init)(jax.random.key(0))
    after, _ = jax.jit(agent.update)(jax.random.key(1), state, batch_of(5, 16))
    before_value = float(state.log_temperature.params)
    assert np.sign(float(after.log_temperature.params) - before_value) == direction


def test_auto_target_entropy_is_minus_the_action_dimensions():
    batches, temperatures = batch_of(2, 16), []
    for target_entropy in (None, -2.0, 30.0):
        agent = sac.build(sac.SacConfig(hidden_units=16, target_entropy=target_entropy), SPEC)
        after, _ = jax.jit(agent.update)(jax.random.key(1), jax.jit(agent.init)(jax.random.key(0)), batches)
        temperatures.append(float(after.log_temperature.params))
    assert temperatures[0] == temperatures[1] != temperatures[2]


@pytest.mark.parametrize(
    "knobs", [{"discount": 1.01}, {"learning_rate": -1.0}, {"hidden_units": 0}, {"target_entropy": "x"}]
)
def test_knobs_out_of_range_are_refused_by_name(knobs):
    with pytest.raises(ValueError, match=f"{next(iter(knobs))} must be"):
        sac.SacConfig(**knobs)


# -- faults --------------------------------------------------------------------------------------------------------

HEALTHY = sac.build(sac.SacConfig(hidden_units=8, num_hidden_layers=2), SPEC)
INIT, UPDATE = jax.jit(HEALTHY.init), jax.jit(HEALTHY.update)


def first_state():
    return INIT(jax.random.key(0))


def text_of(state, batches):
    return fault_text(UPDATE(jax.random.key(1), state, batches)[1])


def plant(tree, value, layer="Dense_1", part="kernel", index=(0, 2, 3)):
    params = jax.tree.map(lambda leaf: leaf, tree)
    params["_Mlp_0"][layer][part] = params["_Mlp_0"][layer][part].at[index].set(value)
    return params


def test_updates_without_faults_report_none_after_a_hundred():
    state = first_state()
    for i in range(9):
        state, report = UPDATE(jax.random.key(i), state, batch_of(12, 8))
        assert int(fault_of(report).update) == -1
    assert int(state.num_updates) == 108  # the weights and moments were checked


@pytest.mark.parametrize("critic", [0, 1])
@pytest.mark.parametrize(("value", "word"), [(np.nan, "nan"), (np.inf, "(nan|inf)")])
def test_one_weight_of_a_critic(critic, value, word):
    state = first_state()
    params = plant(state.critics.params, value, index=(critic, 2, 3))
    text = text_of(state.replace(critics=state.critics.replace(params=params)), batch_of(12, 8))
    assert re.fullmatch(rf"critic {critic}'s loss is not finite \({word}\) at update 1", text)


def test_one_weight_of_the_actor_and_of_a_target_and_the_temperature():
    state, batches = first_state(), batch_of(12, 8)
    params = plant(state.actor.params, np.nan, index=(2, 3))
    text = text_of(state.replace(actor=state.actor.replace(params=params)), batches)
    assert text == "the log-probability of the policy's actions is not finite (nan) at update 1"
    text = text_of(state.replace(target_params=plant(state.target_params, np.nan)), batches)
    assert text == "the critics' target is not finite (nan) at update 1"
    temperature = state.log_temperature.replace(params=jnp.float32(90.0))
    assert (
        text_of(state.replace(log_temperature=temperature), batches)
        == "the temperature is not finite (inf) at update 1"
    )


@pytest.mark.parametrize(
    ("reward", "text"),
    [
        (1e9, "critic 0's loss has exploded (6.2e+16) at update 5"),
        (-1e17, "the critics' target has exploded (1e+17) at update 5"),
        (np.nan, "the critics' target is not finite (nan) at update 5"),
    ],
)
def test_a_reward_that_is_too_large_at_its_update(reward, text):
    batches = batch_of(12, 8)
    batches.reward[4, 3] = reward
    assert text_of(first_state(), batches) == text


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("params", "a weight of critic 1 is not finite (inf)"),
        ("opt_state", "a moment of Adam of critic 1 is not finite (inf)"),
    ],
)
def test_what_no_loss_shows_is_found_within_a_hundred_updates(part, expected):
    """A unit that is off for ever, and a weight that does not learn any more because its second moment overflowed."""
    state = first_state()
    if part == "params":
        params = plant(state.critics.params, -np.inf, part="bias", index=(1, 3))
        params["_Mlp_0"]["Dense_2"]["kernel"] = params["_Mlp_0"]["Dense_2"]["kernel"].at[1, 3].set(0.0)
        state = state.replace(critics=state.critics.replace(params=params))
    else:
        adam, *rest = state.critics.opt_state
        moments = (adam._replace(nu=plant(adam.nu, np.inf, index=(1, 2, 3))), *rest)
        state = state.replace(critics=state.critics.replace(opt_state=moments))
    texts = []
    for i in range(9):
        state, report = UPDATE(jax.random.key(i), state, batch_of(12, 8))
        texts.append(fault_text(report))
    assert texts[:8] == [None] * 8
    assert texts[8] == f"{expected} at update 12"


def test_seeds_side_by_side_have_a_fault_each():
    states = jax.jit(jax.vmap(HEALTHY.init))(jax.random.split(jax.random.key(0), 3))
    batches = jax.tree.map(lambda leaf: np.stack([leaf] * 3), batch_of(12, 8))
    batches.reward[1, 4, 3] = np.inf
    update = jax.jit(jax.vmap(lambda *args: health.first_fault(HEALTHY.update(*args)[1].watched)))
    assert update(jax.random.split(jax.random.key(1), 3), states, batches).update.tolist() == [-1, 4, -1]
