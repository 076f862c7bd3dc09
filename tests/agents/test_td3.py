import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain import (
    SPEC,
    assert_close,
    batch_of,
    fault_of,
    fault_text,
    num_steps,
    parts,
    plant,
    policy,
    q_of,
    same,
    some_of,
    written_out,
)

from mbpo_jax import health
from mbpo_jax.agents import td3

SMALL = {"hidden_units": 16, "num_hidden_layers": 1, "learning_rate": 1e-2, "target_update_rate": 0.1}
QUIET = td3.build(td3.Td3Config(**SMALL, target_noise_std=0.0, actor_every_updates=3), SPEC)
UPDATE = jax.jit(QUIET.update)
KEY = jax.random.key(4)


def first_state(agent=QUIET, seed=0):
    return jax.jit(agent.init)(jax.random.key(seed))


# -- by hand -------------------------------------------------------------------------------------------------------


def test_the_target_by_hand(variant):
    target = variant(td3.critic_target)(
        reward=jnp.float32([1.0, 2.0, -1.0]),
        terminal=jnp.float32([0.0, 1.0, 0.0]),
        next_q=jnp.float32([[5.0, 100.0, -2.0], [4.0, 200.0, 7.0]]),
        discount=0.9,
    )
    # 1 + 0.9 * min(5, 4); a terminal row is worth its reward, whatever follows; -1 + 0.9 * min(-2, 7)
    np.testing.assert_allclose(target, [4.6, 2.0, -2.8], rtol=1e-6)
    for reward, terminal in (((3, 1), (3,)), ((3,), (3, 1))):  # would silently be [B, B]
        with pytest.raises(AssertionError, match=r"\(3, 1\)"):
            td3.critic_target(jnp.ones(reward), jnp.ones(terminal), jnp.ones((2, 3)), 0.9)


def test_the_actions_of_the_target_by_hand(variant):
    action = jnp.float32([[0.0, 0.0, 0.0], [0.9, -0.9, 0.3]])
    noise = jnp.float32([[1.0, -2.0, 10.0], [2.0, -3.0, -1.0]])
    smoothed = variant(lambda action, noise: td3.smooth(action, noise, 0.2, 0.5))(action, noise)
    # 0.2 * noise, held within 0.5; then the action within 1
    np.testing.assert_allclose(smoothed, [[0.2, -0.4, 0.5], [1.0, -1.0, 0.1]], atol=1e-6)


def test_exploring_actions_by_hand():
    explored = td3.explore(jnp.float32([0.5, -0.5, 0.0]), jnp.float32([1.0, -9.0, 12.0]), 0.1)
    np.testing.assert_allclose(explored, [0.6, -1.0, 1.0], atol=1e-6)


def test_the_actors_loss_is_minus_the_mean():
    assert float(td3.actor_loss(jnp.float32([1.0, 2.0, 6.0]))) == -3.0


def test_five_updates_equal_the_algorithm_written_out():
    """The critics move first, then the actor by the critics as they are now; noise and batches are the same."""
    std, clip, every = 1.0, 0.3, 2
    config = td3.Td3Config(**SMALL, target_noise_std=std, target_noise_clip=clip, actor_every_updates=every)
    agent, batches = td3.build(config, SPEC), batch_of(5, 32)
    state = first_state()
    after, report = jax.jit(agent.update)(KEY, state, batches)
    want = written_out(state, batches, np.asarray(jax.random.normal(KEY, (5, 32, 2))), config, 2, std, clip, every)
    assert_close(parts(after), want)
    assert int(after.num_updates) == 5
    assert num_steps(after.critics).tolist() == [5, 5]
    assert int(num_steps(after.actor)) == 5 // every
    assert int(fault_of(report).update) == -1


# -- what moves what -----------------------------------------------------------------------------------------------


def test_the_actor_and_all_targets_move_at_every_third_update_and_by_the_rate():
    state, batches, moved = first_state(), batch_of(7, 16), []
    for g in range(7):
        after, _ = UPDATE(KEY, state, some_of(batches, g, g + 1))
        before, now = parts(state), parts(after)
        moved.append({name: not same(before[name], now[name]) for name in now})
        if moved[-1]["actor"]:
            for part, copy in (("actor", "target_actor"), ("critics", "targets")):
                assert_close(
                    now[copy], jax.tree.map(lambda new, old: 0.1 * new + 0.9 * old, now[part], before[copy]), 1e-6
                )
        else:
            assert same(state.actor, after.actor)  # its moments and its count too
            assert float(after.actor_loss) == float(state.actor_loss)
        state = after
    for name in ("actor", "target_actor", "targets"):
        assert [which[name] for which in moved] == [False, False, True, False, False, True, False], name
    assert all(which["critics"] for which in moved)


@pytest.mark.parametrize("calls", [(1, 1, 1, 1, 1, 1, 1), (1, 3, 3)])
def test_the_count_goes_on_over_calls_as_within_one(calls):
    """However a call may end between two updates of the actor."""
    batches, state, at = batch_of(7, 16), first_state(), 0
    whole, whole_report = UPDATE(KEY, first_state(), batches)
    losses = []
    for length in calls:
        state, report = UPDATE(KEY, state, some_of(batches, at, at + length))
        losses += [float(report.metrics["critic_loss"])] * length
        at += length
    assert_close(state, whole, 1e-6)
    assert int(state.num_updates) == int(whole.num_updates) == 7
    assert int(num_steps(state.actor)) == int(num_steps(whole.actor)) == 2
    assert np.mean(losses) == pytest.approx(float(whole_report.metrics["critic_loss"]), rel=1e-5)


def test_the_actors_update_leaves_the_critics():
    never = td3.Td3Config(**SMALL, target_noise_std=0.0, actor_every_updates=1000)
    alone, _ = jax.jit(td3.build(never, SPEC).update)(KEY, first_state(), batch_of(3, 16))
    both, _ = UPDATE(KEY, first_state(), batch_of(3, 16))
    assert not same(both.actor.params, alone.actor.params)
    assert_close(both.critics, alone.critics, 1e-6)
    assert same(alone.actor, first_state().actor)
    assert same(alone.target_params, first_state().target_params)


@pytest.mark.parametrize(("critic", "moves_it"), [(0, True), (1, False)])
def test_the_actor_maximises_critic_0_alone(critic, moves_it):
    state = first_state().replace(num_updates=jnp.int32(2))
    params = plant(state.critics.params, -3.0, index=(critic, 2, 3))
    other = state.replace(critics=state.critics.replace(params=params))
    after, changed = (UPDATE(KEY, s, batch_of(1, 16))[0] for s in (state, other))
    assert not same(after.actor.params, state.actor.params)
    assert same(after.actor, changed.actor) != moves_it  # the moments too: Adam's first step is all sign


def turned(params, index):
    """Parameters with another last bias, which every output feels."""
    return plant(params, -3.0, index=index, layer="Dense_1", part="bias")


def test_the_critics_learn_from_the_targets_and_not_from_themselves_or_the_actor():
    """One update from the same parameters with another actor, or with the twin changed: a critic moves as before."""
    state, batches = first_state(), batch_of(1, 16)
    after, _ = UPDATE(KEY, state, batches)
    other_actor = state.replace(actor=state.actor.replace(params=turned(state.actor.params, (0,))))
    assert same(UPDATE(KEY, other_actor, batches)[0].critics, after.critics)
    twin = state.replace(critics=state.critics.replace(params=turned(state.critics.params, (1, 0))))
    moved = UPDATE(KEY, twin, batches)[0].critics
    assert same(*(jax.tree.map(lambda leaf: leaf[0], critics) for critics in (moved, after.critics)))
    for name, value in (
        ("target_actor_params", turned(state.target_actor_params, (0,))),
        ("target_params", turned(state.target_params, (0, 0))),
    ):
        assert not same(UPDATE(KEY, state.replace(**{name: value}), batches)[0].critics, after.critics)


def test_targets_start_as_copies_and_everybody_differs():
    state, other = first_state(), first_state(seed=1)
    assert same(state.actor.params, state.target_actor_params)
    assert same(state.critics.params, state.target_params)
    kernel = np.asarray(state.critics.params["_Mlp_0"]["Dense_0"]["kernel"])
    assert kernel.shape == (2, 5, 16)
    assert not np.allclose(kernel[0], kernel[1])
    assert not np.allclose(kernel, other.critics.params["_Mlp_0"]["Dense_0"]["kernel"])
    after, _ = UPDATE(KEY, state, batch_of(7, 16))
    kernel = np.asarray(after.critics.params["_Mlp_0"]["Dense_0"]["kernel"])
    assert not np.allclose(kernel[0], kernel[1])


def test_no_array_is_in_the_state_twice():
    """Else it could not be donated."""
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(first_state())]
    assert len(set(pointers)) == len(pointers)


def test_the_noise_of_the_target_is_the_keys():
    agent, batches, state = td3.build(td3.Td3Config(**SMALL), SPEC), batch_of(1, 16), first_state()
    update, losses = jax.jit(agent.update), []
    for key in (4, 4, 5):
        _, report = update(jax.random.key(key), state, batches)
        noise = jax.random.normal(jax.random.key(key), (1, 16, 2))
        by_hand = jax.jit(loss_of)(state, jax.tree.map(lambda leaf: leaf[0], batches), noise[0])
        assert float(report.metrics["critic_loss"]) == pytest.approx(float(by_hand), rel=1e-5)
        losses.append(float(by_hand))
    assert losses[0] == losses[1] != losses[2]


def loss_of(state, b, noise):
    """The critics' loss at these parameters, with the default knobs."""
    next_action = jnp.clip(policy(state.target_actor_params, b.next_obs) + jnp.clip(0.2 * noise, -0.5, 0.5), -1, 1)
    next_q = jnp.minimum(*(q_of(state.target_params, m, b.next_obs, next_action) for m in (0, 1)))
    y = b.reward + 0.99 * (1 - b.terminal) * next_q
    return sum(0.5 * ((q_of(state.critics.params, m, b.obs, b.action) - y) ** 2).mean() for m in (0, 1))


# -- acting --------------------------------------------------------------------------------------------------------

OBS = jnp.tile(jnp.float32([[0.1, -0.2, 0.3]]), (20_000, 1))


def actions(std, explores, key=KEY):
    agent, state = td3.build(td3.Td3Config(**SMALL, exploration_noise_std=std), SPEC), first_state()
    return np.asarray(agent.act(key, agent.actor(state), OBS, explores)), np.asarray(policy(state.actor.params, OBS))


def test_evaluation_has_no_noise():
    acted, expected = actions(0.1, False)
    np.testing.assert_allclose(acted, expected, atol=1e-6)
    np.testing.assert_array_equal(acted, actions(0.1, False, jax.random.key(9))[0])


def test_exploring_actions_spread_around_the_actors_by_the_noise():
    acted, expected = actions(0.1, True)
    assert np.abs(expected).max() < 0.5  # so that nothing is clipped
    noise = acted - expected
    np.testing.assert_allclose(noise.mean(0), 0.0, atol=0.003)
    np.testing.assert_allclose(noise.std(0), 0.1, rtol=0.02)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.03
    assert np.mean(np.abs(noise) > 0.2) == pytest.approx(0.0455, abs=0.005)  # two standard deviations of a Gaussian


def test_much_noise_is_held_within_the_bounds_and_none_is_none():
    acted, expected = actions(5.0, True)
    assert (acted.min(), acted.max()) == (-1.0, 1.0)
    np.testing.assert_allclose(actions(0.0, True)[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    "knobs",
    [
        {"discount": 1.01}, {"learning_rate": -1.0}, {"exploration_noise_std": -0.1}, {"target_noise_std": -1.0},
        {"target_noise_clip": -0.5}, {"actor_every_updates": 0},
    ],
)  # fmt: skip
def test_knobs_out_of_range_are_refused_by_name(knobs):
    with pytest.raises(ValueError, match=f"{next(iter(knobs))} must be"):
        td3.Td3Config(**knobs)


# -- faults --------------------------------------------------------------------------------------------------------


def text_of(state, batches):
    return fault_text(UPDATE(KEY, state, batches)[1])


def test_updates_without_faults_report_none_after_a_hundred():
    state = first_state()
    for i in range(15):
        state, report = UPDATE(jax.random.key(i), state, batch_of(7, 16))
        assert int(fault_of(report).update) == -1
    assert int(state.num_updates) == 105  # the weights and moments were checked


def test_one_weight_of_each_network_is_named():
    state, batches = first_state(), batch_of(7, 16)
    for m in (0, 1):
        params = plant(state.critics.params, np.nan, index=(m, 2, 3))
        text = text_of(state.replace(critics=state.critics.replace(params=params)), batches)
        assert text == f"critic {m}'s loss is not finite (nan) at update 1"
    for name, index in (("target_params", (0, 2, 3)), ("target_actor_params", (2, 3))):
        text = text_of(state.replace(**{name: plant(getattr(state, name), np.nan, index=index)}), batches)
        assert text == "the critics' target is not finite (nan) at update 1"
    params = plant(state.actor.params, np.nan, index=(2, 3))
    text = text_of(state.replace(actor=state.actor.replace(params=params)), batches)
    assert text == "the actor's loss is not finite (nan) at update 3"  # the first that moves it


@pytest.mark.parametrize(
    ("reward", "text"),
    [
        (1e9, "critic 0's loss has exploded (3.1e+16) at update 5"),
        (-1e17, "the critics' target has exploded (1e+17) at update 5"),
        (np.nan, "the critics' target is not finite (nan) at update 5"),
    ],
)
def test_a_reward_that_is_too_large_at_its_update(reward, text):
    batches = batch_of(7, 16)
    batches.reward[4, 3] = reward
    assert text_of(first_state(), batches) == text


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("actor", "a moment of Adam of the actor is not finite (inf)"),
        ("critics", "a moment of Adam of critic 1 is not finite (inf)"),
        ("target_actor", "a weight of the actor is not finite (inf)"),
    ],
)
def test_what_no_loss_shows_is_found_within_a_hundred_updates(part, expected):
    """A weight that learns no more because its second moment overflowed; a unit of a target that is off for ever."""
    state, index = first_state(), {"actor": (2, 3), "critics": (1, 2, 3)}
    if part == "target_actor":
        params = plant(state.target_actor_params, -np.inf, index=(3,), part="bias")
        params = plant(params, 0.0, index=(3,), layer="Dense_1")
        state = state.replace(target_actor_params=params)
    else:
        learner = getattr(state, part)
        adam, *rest = learner.opt_state
        moments = (adam._replace(nu=plant(adam.nu, np.inf, index=index[part])), *rest)
        state = state.replace(**{part: learner.replace(opt_state=moments)})
    texts = []
    for i in range(15):
        state, report = UPDATE(jax.random.key(i), state, batch_of(7, 16))
        texts.append(fault_text(report))
    assert texts == [None] * 14 + [f"{expected} at update 7"]


def test_seeds_side_by_side_are_as_alone():
    """Batched, both branches of the delay are computed and one is chosen."""
    keys = jax.random.split(jax.random.key(0), 3)
    batches = jax.tree.map(lambda leaf: np.stack([leaf] * 3), batch_of(7, 16))
    batches.reward[1, 4, 3] = np.inf
    state = first_state()
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), state)
    update = jax.jit(jax.vmap(QUIET.update))
    states, report = update(keys, states, batches)
    assert jax.vmap(lambda report: health.first_fault(report.watched).update)(report).tolist() == [-1, 4, -1]
    for i in (0, 2):
        alone, _ = UPDATE(keys[i], state, batch_of(7, 16))
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], parts(states)), parts(alone))
        assert int(num_steps(states.actor)[i]) == 2
