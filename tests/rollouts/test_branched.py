import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from mbpo_jax import health, replay
from mbpo_jax.environments.cartpole import CartpoleContinuous
from mbpo_jax.rollouts import branched
from mbpo_jax.types import Dynamics, Spec

BLOCK_ROWS = 1000


def countdown(key, group, obs, action):
    """obs = (name, steps left): a row ends when none are left; the reward is the group that moved it."""
    del key, action
    left = obs[:, 1] - 1
    reward = jnp.full(obs.shape[:1], group, jnp.float32)
    return jnp.stack([obs[:, 0], left], -1), reward, left <= 0


def no_action(key, obs):
    del key
    return jnp.zeros((obs.shape[0], 1))


def starts(steps_left):
    return jnp.asarray(np.stack([np.arange(len(steps_left)), steps_left], -1), jnp.float32)


@functools.cache
def compiled(step_fn, policy_fn=no_action, num_groups=1, max_block_rows=BLOCK_ROWS):
    """`roll_out` of some dynamics; tests of the same ones and equal shapes share it."""
    dynamics = Dynamics(step_fn, num_groups)

    def roll(key, buffer, start_obs, length, limit):
        return branched.roll_out(key, policy_fn, dynamics, buffer, start_obs, length, limit, max_block_rows)

    return jax.jit(roll)


def run(step_fn, start_obs, length, capacity=50_000, num_groups=1, key=0, limit=None, action_dim=1):
    buffer = replay.init(Spec(start_obs.shape[1], action_dim), capacity)
    limit = capacity if limit is None else limit
    roll = compiled(step_fn, num_groups=num_groups)
    buffer, report = roll(jax.random.key(key), buffer, start_obs, jnp.asarray(length), jnp.asarray(limit))
    return tiny_runs.rows_of(buffer), report.metrics, buffer


@pytest.mark.parametrize(("num_starts", "num_groups"), [(7, 1), (7, 5), (3, 5), (2500, 3), (1000, 1), (5001, 5)])
def test_every_row_is_stored_until_its_end_and_nothing_after_it(num_starts, num_groups):
    steps_left = np.random.default_rng(0).integers(1, 7, num_starts)
    rows, metrics, _ = run(countdown, starts(steps_left), length=4, num_groups=num_groups)
    expected = [
        (name, left - t, left - t - 1 <= 0) for name, left in enumerate(steps_left) for t in range(min(left, 4))
    ]
    stored = list(
        zip(
            rows.obs[:, 0].astype(int).tolist(),
            rows.obs[:, 1].astype(int).tolist(),
            (rows.terminal > 0.5).tolist(),
        )
    )
    assert sorted(stored) == sorted(expected)
    assert int(metrics["transitions"]) == len(expected)
    assert float(metrics["terminal_fraction"]) == pytest.approx(sum(e[2] for e in expected) / len(expected))
    np.testing.assert_array_equal(rows.next_obs[:, 1], rows.obs[:, 1] - 1)


def test_length_is_really_used():
    for length in (1, 2, 9):
        rows, metrics, _ = run(countdown, starts([100] * 30), length)
        assert int(metrics["transitions"]) == 30 * length
        assert rows.obs[:, 1].min() == 100 - length + 1


def test_each_version_of_the_dynamics_moves_an_equal_share_and_rows_change_version():
    rows, _, _ = run(countdown, starts([100] * 2500), length=3, num_groups=5)
    groups = np.asarray(rows.reward).astype(int)
    for t in range(3):
        at_step = groups[rows.obs[:, 1] == 100 - t]
        assert np.bincount(at_step, minlength=5).tolist() == [500] * 5
    by_name = groups[np.lexsort((-rows.obs[:, 1], rows.obs[:, 0]))].reshape(2500, 3)
    # Versions at different steps are independent: two steps agree in a fifth of the rows, and pairs are even.
    assert np.mean(by_name[:, 0] == by_name[:, 1]) == pytest.approx(0.2, abs=0.04)
    assert np.mean(by_name[:, 1] == by_name[:, 2]) == pytest.approx(0.2, abs=0.04)
    # Neighbouring rows are not dealt out together either.
    assert np.mean(by_name[:-1, 0] == by_name[1:, 0]) == pytest.approx(0.2, abs=0.04)


def test_the_version_of_a_row_is_uniform_over_keys():
    counts = np.zeros((4, 2))
    empty, dynamics = replay.init(Spec(2, 1), 4), Dynamics(countdown, 2)
    one, four = jnp.asarray(1), jnp.asarray(4)
    roll = jax.jit(
        lambda key: branched.roll_out(key, no_action, dynamics, empty, starts([9] * 4), one, four, BLOCK_ROWS)[0].rows
    )
    for key in range(200):
        rows = roll(jax.random.key(key))
        counts[np.asarray(rows.obs[:, 0]).astype(int), np.asarray(rows.reward).astype(int)] += 1
    assert (np.abs(counts - 100) < 35).all(), counts


@pytest.mark.parametrize("num_rows", [3, 11])
def test_every_version_has_its_turn_when_few_rows_are_left(num_rows):
    """Shares differ by a row at most, and which versions have more is a matter of chance."""
    empty, dynamics, total = replay.init(Spec(2, 1), num_rows), Dynamics(countdown, 5), np.zeros(5, int)
    one, all_rows = jnp.asarray(1), jnp.asarray(num_rows)

    def versions(key):
        buffer, _ = branched.roll_out(
            key, no_action, dynamics, empty, starts([9] * num_rows), one, all_rows, BLOCK_ROWS
        )
        return buffer.rows.reward

    for moved_by in np.asarray(jax.jit(jax.vmap(versions))(jax.random.split(jax.random.key(0), 500)), int):
        shares = np.bincount(moved_by, minlength=5)
        assert shares.max() - shares.min() == 1
        total += shares
    np.testing.assert_allclose(total / (500 * num_rows), 0.2, atol=5 * np.sqrt(0.16 / (500 * num_rows)))


def test_no_prediction_is_made_and_thrown_away():
    evaluated = []

    def counted(key, group, obs, action):
        jax.debug.callback(lambda n: evaluated.append(int(n)), jnp.asarray(obs.shape[0]))
        return countdown(key, group, obs, action)

    # 10,000 rows, 9,000 of which end at the first step: 10 blocks, and then one.
    steps_left = np.where(np.arange(10_000) < 9000, 1, 9)
    _, metrics, _ = run(counted, starts(steps_left), 2)
    jax.effects_barrier()
    assert int(metrics["transitions"]) == 11_000
    assert sum(evaluated) == 11_000
    evaluated.clear()
    _, metrics, _ = run(counted, starts([9] * 10_000), 1, num_groups=5)  # one version each, not five
    jax.effects_barrier()
    assert sum(evaluated) == 10_000


def test_predictions_that_are_not_finite_are_dropped_and_counted():
    def broken(key, group, obs, action):
        next_obs, reward, terminal = countdown(key, group, obs, action)
        bad = obs[:, 0] % 5 == 0
        return (
            jnp.where(bad[:, None], jnp.nan, next_obs),
            jnp.where(obs[:, 0] % 5 == 1, jnp.inf, reward),
            terminal,
        )

    rows, metrics, _ = run(broken, starts([3] * 1500), 2)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(rows))
    assert sorted(set((rows.obs[:, 0] % 5).astype(int).tolist())) == [2, 3, 4]
    assert int(metrics["dropped_nonfinite"]) == 600  # at the first step; none of them goes on
    assert int(metrics["transitions"]) == 2 * 900
    assert np.isfinite(metrics["model_reward_max"])


def test_the_oldest_rows_give_way():
    rows, _, buffer = run(countdown, starts([9] * 40), 3, capacity=200, limit=50)
    assert int(buffer.size) == 50
    assert sorted(np.asarray(rows.obs[:, 1]).astype(int).tolist()) == [7] * 40 + [8] * 10


def test_one_trace_for_every_length_and_limit():
    traces = []

    def counted(key, group, obs, action):
        traces.append(1)
        return countdown(key, group, obs, action)

    buffer = replay.init(Spec(2, 1), 1000)
    roll = jax.jit(
        lambda k, b, n, m: branched.roll_out(k, no_action, Dynamics(counted), b, starts([9] * 20), n, m, BLOCK_ROWS)
    )
    roll(jax.random.key(0), buffer, jnp.asarray(1), jnp.asarray(100))
    first = len(traces)
    for length in range(2, 6):
        roll(jax.random.key(0), buffer, jnp.asarray(length), jnp.asarray(100 * length))
    assert len(traces) == first


def test_with_the_true_dynamics_a_rollout_reproduces_the_environment():
    """Cart-pole written again in jax as `step_fn`, against the real Gymnasium environment, every stored row."""

    def cartpole(key, group, obs, action):
        del key, group
        x, x_dot, theta, theta_dot = jnp.moveaxis(obs, -1, 0)
        sin, cos, force = jnp.sin(theta), jnp.cos(theta), 10.0 * action[:, 0]
        push = (force + 0.05 * theta_dot**2 * sin) / 1.1
        theta_acc = (9.8 * sin - cos * push) / (0.5 * (4.0 / 3.0 - 0.1 * cos**2 / 1.1))
        x_acc = push - 0.05 * theta_acc * cos / 1.1
        change = jnp.stack([x_dot, x_acc, theta_dot, theta_acc], -1)
        next_obs = obs + 0.02 * change
        ended = (jnp.abs(next_obs[:, 0]) > 2.4) | (jnp.abs(next_obs[:, 2]) > 12 * np.pi / 180)
        return next_obs, jnp.ones(obs.shape[0]), ended

    def random_action(key, obs):
        return jax.random.uniform(key, (obs.shape[0], 1), minval=-1.0, maxval=1.0)

    start_obs = jax.random.uniform(jax.random.key(0), (40, 4), minval=-0.15, maxval=0.15)
    buffer = replay.init(Spec(4, 1), 2000)
    dynamics = Dynamics(cartpole)
    length, limit = jnp.asarray(30), jnp.asarray(2000)
    buffer, report = jax.jit(
        lambda: branched.roll_out(
            jax.random.key(1), random_action, dynamics, buffer, start_obs, length, limit, BLOCK_ROWS
        )
    )()
    rows = tiny_runs.rows_of(buffer)
    assert 0 < float(report.metrics["terminal_fraction"]) < 1
    env = CartpoleContinuous()
    env.reset(seed=0)
    for obs, action, reward, next_obs, terminal in zip(
        rows.obs, rows.action, rows.reward, rows.next_obs, rows.terminal
    ):
        env._state = obs
        real_obs, real_reward, terminated, _, _ = env.step(action)
        np.testing.assert_allclose(next_obs, real_obs, atol=2e-6)
        assert reward == real_reward
        if abs(abs(real_obs[2]) - 12 * np.pi / 180) > 1e-5 and abs(abs(real_obs[0]) - 2.4) > 1e-5:
            assert (terminal > 0.5) == terminated


# -- a round in several programs -----------------------------------------------------------------------------------


def noisy(key, group, obs, action):
    """Countdown whose state carries noise of every key and group on."""
    next_obs, reward, ends = countdown(key, group, obs, action)
    moved = obs[:, 2] + action[:, 0] + jax.random.normal(key, obs.shape[:1]) + group
    return jnp.concatenate([next_obs, moved[:, None]], -1), reward + moved, ends


def noisy_action(key, obs):
    return jax.random.normal(key, (obs.shape[0], 1))


NOISY = Dynamics(noisy, 3)


def noisy_starts(num_rows=47):
    left = np.random.default_rng(1).integers(1, 6, num_rows)
    return jnp.asarray(np.concatenate([starts(left), np.zeros((num_rows, 1), np.float32)], -1))


STEP = jax.jit(lambda key, b, r: branched.step(key, noisy_action, NOISY, b, r, 8), donate_argnums=(1, 2))
START = jax.jit(branched.start)


def in_programs(start_obs, length, buffer, limit, through_host=False):
    """(buffer, rollout, steps taken) of a round, one call a step, the state of it perhaps written out in between."""
    rollout, _ = START(start_obs, jnp.asarray(length), jnp.asarray(limit))
    steps = 0
    while branched.is_running(rollout):
        if through_host:
            rollout, buffer = jax.tree.map(lambda leaf: jnp.asarray(np.array(leaf)), (rollout, buffer))
        buffer, rollout, _ = STEP(jax.random.key(3), buffer, rollout)
        steps += 1
    return buffer, rollout, steps


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.parametrize("through_host", [False, True])
@pytest.mark.parametrize(("length", "limit", "steps"), [(1, 300, 1), (3, 300, 3), (3, 20, 3), (9, 300, 5)])
def test_a_round_in_programs_is_the_round_in_one(length, limit, steps, through_host):
    start_obs = noisy_starts()
    whole, report = compiled(noisy, noisy_action, 3, max_block_rows=8)(
        jax.random.key(3), replay.init(Spec(3, 1), 300), start_obs, jnp.asarray(length), jnp.asarray(limit)
    )
    buffer, rollout, taken = in_programs(start_obs, length, replay.init(Spec(3, 1), 300), limit, through_host)
    assert taken == steps  # every row ends after five steps, and the round with it
    assert int(rollout.step) == steps
    assert_same(buffer, whole)
    assert_same(branched.metrics(rollout, buffer), report.metrics)
    assert int(report.metrics["transitions"]) == int(buffer.num_added) == int(np.minimum(start_obs[:, 1], length).sum())


def test_every_row_and_step_has_noise_of_its_own_and_actions_another_than_the_model():
    def step(key, group, obs, action):
        return obs - 1.0, jax.random.normal(key, obs.shape[:1]), jnp.zeros(len(obs), bool)

    roll = compiled(step, noisy_action, 3, max_block_rows=8)  # two blocks for each group
    empty, length, limit = replay.init(Spec(2, 1), 300), jnp.asarray(3), jnp.asarray(300)
    buffer, _ = roll(jax.random.key(0), empty, starts([9] * 47), length, limit)
    rows = tiny_runs.rows_of(buffer)
    action, noise = rows.action[:, 0], rows.reward
    assert len(np.unique(action)) == len(np.unique(noise)) == 141
    assert abs(np.corrcoef(action, noise)[0, 1]) < 0.3


def test_an_empty_round_is_not_running_and_has_the_form_of_a_round():
    empty = branched.empty(47, 3)
    assert not branched.is_running(empty)
    started, _ = START(noisy_starts(), jnp.asarray(1), jnp.asarray(1))
    form = [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(empty)]
    assert form == [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(started)]
    assert len({leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(empty)}) == len(jax.tree.leaves(empty))


def test_a_step_writes_the_buffer_in_place_and_needs_no_second_one(optimised):
    buffer = replay.init(Spec(3, 1), 200_000)
    rollout, _ = START(noisy_starts(), jnp.asarray(2), jnp.asarray(200_000))
    memory = STEP.lower(jax.random.key(3), buffer, rollout).compile(optimised).memory_analysis()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(buffer))
    assert memory.alias_size_in_bytes > size
    assert memory.temp_size_in_bytes < size / 20
    before = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(buffer)]
    after, _, _ = STEP(jax.random.key(3), buffer, rollout)
    assert [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(after)] == before


# -- faults --------------------------------------------------------------------------------------------------------


FIRST_FAULT = jax.jit(health.first_fault)


def described(step_fn, start_obs, policy_fn=no_action, length=3, num_groups=2):
    roll = compiled(step_fn, policy_fn, num_groups)
    empty = replay.init(Spec(start_obs.shape[1], 1), 100)
    buffer, report = roll(jax.random.key(0), empty, start_obs, jnp.asarray(length), jnp.asarray(100))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(buffer))
    return health.describe(FIRST_FAULT(report.watched)), report.metrics


def spoilt(value, names, from_left=99):
    def step(key, group, obs, action):
        next_obs, reward, ends = countdown(key, group, obs, action)
        bad = (obs[:, 0] < names) & (obs[:, 1] <= from_left)
        return next_obs, jnp.where(bad, value, reward), ends

    return step


def test_a_round_that_stores_something_has_no_fault():
    text, metrics = described(spoilt(np.nan, names=9), starts([9] * 10))
    assert text is None
    assert (int(metrics["dropped_nonfinite"]), int(metrics["transitions"])) == (9, 3)


def test_a_round_whose_rows_have_all_ended_has_no_fault():
    text, metrics = described(countdown, starts([1] * 10))
    assert text is None
    assert int(metrics["transitions"]) == 10


@pytest.mark.parametrize(
    ("value", "what"),
    [(np.nan, "is not finite (nan)"), (-np.inf, "is not finite (inf)"), (-3.2e17, "has exploded (3.2e+17)")],
)
def test_when_nothing_can_be_stored_any_more_the_predictions_are_named(value, what):
    text, metrics = described(spoilt(value, names=99, from_left=8), starts([9] * 10))
    assert text == f"every imagined prediction {what} at rollout step 2"
    assert (int(metrics["dropped_nonfinite"]), int(metrics["transitions"])) == (10, 10)


def test_one_policy_action_that_is_not_finite_is_named_before_what_it_does():
    def policy(key, obs):
        return jnp.where((obs[:, :1] == 3) & (obs[:, 1:] == 7), jnp.nan, 0.0)

    text, metrics = described(countdown, starts([9] * 10), policy)
    assert text == "a policy action is not finite (nan) at rollout step 3"
    assert int(metrics["dropped_nonfinite"]) == 1


def test_a_start_state_is_named():
    text, _ = described(countdown, starts([9] * 10).at[4, 0].set(np.inf))
    assert text == "a start state is not finite (inf) at rollout step 1"


def test_rows_that_explode_are_dropped_and_counted():
    rows, metrics, _ = run(spoilt(2 * health.LIMIT, names=4), starts([9] * 10), 1)
    assert sorted(rows.obs[:, 0].astype(int).tolist()) == [4, 5, 6, 7, 8, 9]
    assert int(metrics["dropped_nonfinite"]) == 4
    rows, metrics, _ = run(spoilt(health.LIMIT / 2, names=4), starts([9] * 10), 1)
    assert int(metrics["dropped_nonfinite"]) == 0


def test_seeds_side_by_side_have_a_fault_each():
    many = jnp.stack([starts([9] * 4), starts([9] * 4).at[0, 0].set(np.nan), starts([1] * 4)])
    one = lambda o: branched.roll_out(  # noqa: E731
        jax.random.key(0), no_action, Dynamics(countdown), replay.init(Spec(2, 1), 50), o,
        jnp.asarray(3), jnp.asarray(50), BLOCK_ROWS,
    )[1]  # fmt: skip
    report = jax.jit(jax.vmap(one))(many)
    assert jax.vmap(lambda r: health.first_fault(r.watched).update)(report).tolist() == [-1, 0, -1]
    assert report.metrics["transitions"].tolist() == [12, 9, 4]


# -- batched seeds ---------------------------------------------------------------------------------------------------


def test_a_step_of_a_round_that_is_over_adds_no_row():
    """Batched seeds wait so for one another: everything but the buffer is put back by the driver."""
    buffer = replay.add(replay.init(Spec(3, 1), 300), jax.tree.map(lambda leaf: leaf[:5], filled_rows()))
    rollout, _ = START(noisy_starts(), jnp.asarray(0), jnp.asarray(300))
    assert not branched.is_running(rollout)
    before = jax.tree.map(np.array, buffer)
    after, _, _ = STEP(jax.random.key(3), buffer, rollout)
    assert_same(after, before)


def filled_rows():
    roll = compiled(noisy, noisy_action, 3, max_block_rows=8)
    empty, length, limit = replay.init(Spec(3, 1), 300), jnp.asarray(1), jnp.asarray(50)
    return roll(jax.random.key(0), empty, noisy_starts(), length, limit)[0].rows


def test_batched_seeds_with_unequal_rounds_move_the_rows_that_each_moves_alone():
    """Seeds go through as many blocks as the largest needs; those beyond a seed's own store nothing."""
    whole = np.asarray(noisy_starts())
    fewer, shorter = whole.copy(), whole.copy()
    fewer[10:, 1], shorter[:, 1] = 0.0, 1.0
    many = jnp.asarray(np.stack([whole, fewer, shorter]))
    keys = jax.random.split(jax.random.key(3), 3)

    def start(start_obs):
        rollout, _ = branched.start(start_obs, jnp.asarray(2), jnp.asarray(300))
        return replay.init(Spec(3, 1), 300), rollout

    def step(key, buffer, rollout):
        return branched.step(key, noisy_action, NOISY, buffer, rollout, 4)[:2]

    def two_steps(lift, key, start_obs):
        start_lifted, step_lifted = jax.jit(lift(start)), jax.jit(lift(step))
        return step_lifted(key, *step_lifted(key, *start_lifted(start_obs)))

    buffers, rollouts = two_steps(jax.vmap, keys, many)
    assert len(set(rollouts.num_alive.tolist())) == 3
    for i in range(3):
        buffer, rollout = two_steps(lambda fn: fn, keys[i], many[i])
        assert int(rollouts.num_alive[i]) == int(rollout.num_alive)
        rows, mine = buffer.rows, jax.tree.map(lambda leaf, i=i: leaf[i], buffers.rows)
        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(rows), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
