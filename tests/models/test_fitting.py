import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mbpo_jax import health, replay
from mbpo_jax.models import encoding, fit_passes, fit_rows, fitting, gaussian
from mbpo_jax.models import state as model_state
from mbpo_jax.types import FINISHED, Spec, Transition

SPEC = Spec(obs_dim=3, action_dim=2)
SMALL = {
    "model_hidden_units": 8,
    "model_weight_decays": (1e-3, 2e-3, 3e-3),
    "num_members": 3,
    "num_elites": 2,
    "fit_epoch_minibatches": 1,
    "fit_max_gradient_steps": 0,
}


def real_rows(num_rows, seed=0):
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(num_rows, 3)).astype(np.float32) * [1.0, 5.0, 0.1] + [0.0, 3.0, 0.0]
    action = rng.uniform(-1, 1, size=(num_rows, 2)).astype(np.float32)
    next_obs = obs + 0.1 * action[:, :1] + 0.05 * rng.normal(size=(num_rows, 3))
    return Transition(
        obs=obs.astype(np.float32),
        action=action,
        reward=(obs[:, 0] - action[:, 1]).astype(np.float32),
        next_obs=next_obs.astype(np.float32),
        terminal=np.zeros(num_rows, np.float32),
    )


def buffer_of(num_rows, capacity=2000):
    return replay.add(replay.init(SPEC, capacity), real_rows(num_rows))


def build(**knobs):
    """A small model, its compiled fit and its first state; tests with the same knobs share them."""
    return build_once(tuple(sorted(knobs.items())))


@functools.cache
def build_once(knobs):
    model = gaussian.build(gaussian.GaussianConfig(**SMALL | dict(knobs)), SPEC)
    return model, runner(model), jax.jit(model.init)(jax.random.key(1))


# Shared, as other knobs are four more programs to compile. Epochs of 8 minibatches: two slices and two single ones.
SLICED = {"model_batch_size": 64, "fit_slice_minibatches": 3, "fit_max_gradient_steps": 80}
SINGLE = SLICED | {"fit_slice_minibatches": 1}


FIT = fitting.Fit(
    gaussian.GaussianConfig(**SMALL),
    gaussian.member(gaussian.GaussianConfig(**SMALL), encoding.forward(SPEC)),
    encoding.forward(SPEC),
    None,
)


def runner(model):
    """Runs the program of the fit that is due; starts a fit if none is under way. Keeps which were traced."""
    traced = []

    def counted(i):
        def program(*arguments):
            traced.append(i)
            return model.fit.functions[i](*arguments)

        return program

    programs, due = [jax.jit(counted(i)) for i in range(len(model.fit.functions))], jax.jit(model.fit.due)

    def run(key, state, buffer):
        return programs[max(int(due(state)), 0)](key, state, buffer)

    run.traced = traced
    return run


def fit_to_end(model, key, state, buffer, run):
    state, report = run(key, state, buffer)
    metrics, calls = dict(report.metrics), 1
    while model.fit.due(state) != FINISHED:
        state, report = run(key, state, buffer)
        metrics |= report.metrics
        calls += 1
    return state, metrics, calls


def split_rows(key, num_rows, config=None, num_added=None):
    config = config or gaussian.GaussianConfig()
    return fit_rows.split_rows(key, jnp.asarray(num_rows), jnp.asarray(num_added or num_rows), config)


def test_steps_of_a_fit_fall_to_nothing_during_its_last_part():
    """Halves of 80 steps: the share of a step is 1 until step 40, and then falls by a 40th each."""
    whole, falling = (
        fitting.Fit(
            dataclasses.replace(FIT.config, fit_max_gradient_steps=80, fit_decay_fraction=fraction),
            FIT.member,
            FIT.encoding,
            optax.sgd(1.0),
        )
        for fraction in (0.0, 0.5)
    )
    rng = np.random.default_rng(0)
    minibatch = rng.normal(size=(3, 64, 5)), rng.normal(size=(3, 64, 4)), np.full(64, 1 / 64)
    minibatch = jax.tree.map(jnp.float32, minibatch)
    _, _, state = build()
    no_memory = whole.optimizer.init(state.members.params)
    state = state.replace(
        members=state.members.replace(opt_state=no_memory), shared=state.shared.replace(opt_state=no_memory)
    )

    def moved(fit, num_steps):
        before = state.replace(fit=state.fit.replace(num_steps=jnp.asarray(num_steps)))
        after, _ = jax.jit(functools.partial(fitting.gradient_step, fit))(before, minibatch)
        return [
            np.asarray(a - b)
            for learner in ("members", "shared")
            for a, b in zip(
                jax.tree.leaves(getattr(after, learner).params), jax.tree.leaves(getattr(before, learner).params)
            )
        ]

    for num_steps, share in ((0, 1.0), (40, 1.0), (60, 0.5), (79, 0.025)):
        for got, all_of_it in zip(moved(falling, num_steps), moved(whole, num_steps)):
            assert np.abs(all_of_it).max() > 0.0
            np.testing.assert_allclose(got, share * all_of_it, atol=1e-6)


def test_fits_over_few_rows_may_take_more_steps():
    """Up to 100 rows, five times the 80 steps; their step size falls during the last half of these."""
    config = dataclasses.replace(FIT.config, fit_max_gradient_steps=80, fit_decay_fraction=0.5)
    plain, early = (FIT._replace(config=config, few_rows=few_rows) for few_rows in ((0, 1), (100, 5)))
    _, _, state = build()

    def at(fit, num_rows, num_steps):
        now = state.fit.replace(num_rows=jnp.asarray(num_rows), num_steps=jnp.asarray(num_steps))
        return int(fitting._steps_left(fit, now)), float(fitting._step_share(fit, now))

    assert [at(early, rows, 0) for rows in (99, 100, 101)] == [(400, 1.0), (400, 1.0), (80, 1.0)]
    assert [at(early, 100, steps) for steps in (200, 300, 400)] == [(200, 1.0), (100, 0.5), (0, 0.0)]
    for rows, steps in ((100, 60), (101, 60)):
        assert at(plain, rows, steps) == at(early, 101, steps) == (20, 0.5)


def test_steps_that_fall_need_an_end_to_fall_to():
    with pytest.raises(ValueError, match="fit_decay_fraction must be 0 where fit_max_gradient_steps is 0, got 0.5"):
        gaussian.GaussianConfig(fit_decay_fraction=0.5, fit_max_gradient_steps=0)


DRAW = jax.jit(fit_rows.bootstrap_rows, static_argnums=4)
MOMENTS = jax.jit(functools.partial(fit_passes.training_moments, encoding.forward(SPEC)))
THREE = gaussian.GaussianConfig(num_members=3, num_elites=3, fit_epoch_minibatches=1)


def test_weight_penalty_by_hand():
    layer = {"kernel": jnp.full((2, 3), 2.0), "bias": jnp.full(3, 100.0)}
    params = {"layer_0": layer, "mean": layer, "log_var": layer}
    # |W|^2 = 6 * 4 = 24; 0.5 * (0.1 * 24 + 0.3 * 24 + 0.3 * 24)
    assert float(gaussian.weight_penalty(params, (0.1, 0.3))) == pytest.approx(0.5 * (0.1 + 0.3 + 0.3) * 24)


def test_training_moments_are_those_of_the_training_rows():
    buffer = buffer_of(1700)
    split = split_rows(jax.random.key(5), 1700)
    rows = replay.take(buffer, split.train(jnp.arange(split.num_train)))
    inputs = np.concatenate([rows.obs, rows.action], -1).astype(np.float64)
    moments = MOMENTS(split, buffer)
    np.testing.assert_allclose(moments.mean, inputs.mean(0), atol=2e-6)
    np.testing.assert_allclose(moments.std, inputs.std(0), rtol=2e-5)


def swish_mean(params, x):
    """The mean head of one member of SMALL in NumPy, float64."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    for name in ("layer_0", "layer_1"):
        x = x @ params[name]["kernel"] + params[name]["bias"]
        x = x / (1.0 + np.exp(-x))
    return x @ params["mean"]["kernel"] + params["mean"]["bias"]


HELD_OUT_ERROR = jax.jit(functools.partial(fit_passes.holdout_mse, FIT.member, FIT.encoding))
EXPLAINED = jax.jit(functools.partial(fit_passes.explained_shares, FIT.member, FIT.encoding))


@pytest.mark.parametrize(("num_rows", "fraction"), [(6100, 0.2), (1300, 0.0)])
def test_the_held_out_error_is_of_the_held_out_rows_by_hand(num_rows, fraction):
    """In two blocks of rows, not all full. Where nothing is held out it is of all rows."""
    _, _, state = build()
    config, buffer = gaussian.GaussianConfig(holdout_fraction=fraction), buffer_of(num_rows, num_rows)
    split = split_rows(jax.random.key(4), num_rows, config)
    ages = split.holdout(jnp.arange(split.num_holdout)) if fraction else jnp.arange(num_rows)
    assert len(ages) > 1000
    rows, inputs = replay.take(buffer, ages), MOMENTS(split, buffer)
    x = (np.concatenate([rows.obs, rows.action], -1) - np.asarray(inputs.mean)) / np.asarray(inputs.std)
    y = np.concatenate([rows.reward[:, None], rows.next_obs - rows.obs], -1)
    of_members = [jax.tree.map(lambda leaf, m=m: leaf[m], state.members.params) for m in range(3)]
    wanted = [np.mean(np.square(swish_mean(params, x) - y)) for params in of_members]
    belief = model_state.belief(state).replace(inputs=inputs, elites=jnp.asarray([2, 0]))
    np.testing.assert_allclose(HELD_OUT_ERROR(split, buffer, belief), wanted, rtol=2e-5)
    of_elites = np.mean([np.square(swish_mean(of_members[m], x) - y).mean(0) for m in (2, 0)], axis=0)
    np.testing.assert_allclose(EXPLAINED(split, buffer, belief), 1 - of_elites / y.var(0), rtol=2e-4, atol=2e-5)


def test_a_target_that_never_changes_counts_as_explained():
    _, _, state = build()
    buffer = buffer_of(1300)
    rows = buffer.rows.replace(reward=jnp.full_like(buffer.rows.reward, 0.45))
    split = split_rows(jax.random.key(4), 1300)
    shares = EXPLAINED(split, buffer.replace(rows=rows), model_state.belief(state))
    assert float(shares[0]) == 1.0
    assert (np.asarray(shares[1:]) < 1.0).all()


def test_a_fit_reports_what_its_elites_explain_and_only_at_its_end():
    model, run, state = build(**SLICED)
    buffer, shares = buffer_of(1000), []
    state, _ = run(jax.random.key(1), state, buffer)
    while model.fit.due(state) != FINISHED:
        state, report = run(jax.random.key(1), state, buffer)
        if "explained_share_per_target" in report.metrics:
            shares.append(np.asarray(report.metrics["explained_share_per_target"]))
    assert all((share == 0).all() for share in shares[:-1])
    split = split_rows(jax.random.split(jax.random.key(1))[0], 1000)
    np.testing.assert_allclose(shares[-1], EXPLAINED(split, buffer, model_state.belief(state)), rtol=1e-5)


def test_one_step_equals_the_loss_of_the_official_code_written_out():
    """Sum over members of mean[(mu - y)^2 / var + log var] + decays, and 0.01 of the bounds once; Adam on all of it."""
    _, run, before = build(**SINGLE)
    buffer, key = buffer_of(500), jax.random.key(7)
    begun, _ = run(key, before, buffer)
    after, _ = run(key, begun, buffer)
    key_split, key_rows = jax.random.split(key)
    split = split_rows(key_split, 500)
    rows = replay.take(
        buffer, DRAW(key_rows, split, 0, jnp.asarray(0), dataclasses.replace(THREE, model_batch_size=64))
    )
    inputs = MOMENTS(split, buffer)
    x = (np.concatenate([rows.obs, rows.action], -1) - inputs.mean) / inputs.std
    y = np.concatenate([rows.reward[..., None], rows.next_obs - rows.obs], -1)

    def loss(trained):
        params, bounds = trained
        total = 0.01 * bounds["max"].sum() - 0.01 * bounds["min"].sum()
        for m in range(3):
            p = jax.tree.map(lambda leaf, m=m: leaf[m], params)
            h = x[m]
            for name in ("layer_0", "layer_1"):
                h = h @ p[name]["kernel"] + p[name]["bias"]
                h = h * jax.nn.sigmoid(h)
            mean = h @ p["mean"]["kernel"] + p["mean"]["bias"]
            log_var = h @ p["log_var"]["kernel"] + p["log_var"]["bias"]
            log_var = bounds["max"] - jax.nn.softplus(bounds["max"] - log_var)
            log_var = bounds["min"] + jax.nn.softplus(log_var - bounds["min"])
            total += jnp.mean((mean - y[m]) ** 2 * jnp.exp(-log_var) + log_var)
            for name, decay in {"layer_0": 1e-3, "layer_1": 2e-3, "mean": 3e-3, "log_var": 3e-3}.items():
                total += decay * 0.5 * jnp.sum(p[name]["kernel"] ** 2)
        return total

    trained = (before.members.params, before.shared.params)
    optimizer = optax.adam(1e-3)

    @jax.jit
    def step(trained):
        updates, _ = optimizer.update(jax.grad(loss)(trained), optimizer.init(trained))
        return optax.apply_updates(trained, updates)

    expected_params, expected_bounds = step(trained)
    for got, want in zip(jax.tree.leaves(after.members.params), jax.tree.leaves(expected_params)):
        np.testing.assert_allclose(got, want, atol=3e-6)
    for name in ("max", "min"):
        np.testing.assert_allclose(after.shared.params[name], expected_bounds[name], atol=3e-6)
        assert not np.allclose(after.shared.params[name], before.shared.params[name], atol=5e-4)


def test_members_learn_apart():
    """A member that explodes does not touch the others' weights."""
    _, run, healthy = build(**SINGLE)
    buffer = buffer_of(500)
    broken_params = jax.tree.map(lambda leaf: leaf.at[1].mul(1e3), healthy.members.params)
    broken = healthy.replace(members=healthy.members.replace(params=broken_params))
    after_healthy, after_broken = healthy, broken
    for _ in range(3):  # begins, and takes two steps
        after_healthy, _ = run(jax.random.key(2), after_healthy, buffer)
        after_broken, _ = run(jax.random.key(2), after_broken, buffer)
    for name in ("layer_0", "mean"):
        a, b = after_healthy.members.params[name]["kernel"], after_broken.members.params[name]["kernel"]
        # Members share the log-variance bounds, so a first step is equal and a second one nearly so.
        np.testing.assert_allclose(a[0], b[0], atol=2e-4)
        np.testing.assert_allclose(a[2], b[2], atol=2e-4)


def test_a_fit_without_progress_stops_after_six_idle_epochs():
    model, run, state = build(model_learning_rate=0.0, fit_slice_minibatches=4)
    fitted, metrics, calls = fit_to_end(model, jax.random.key(1), state, buffer_of(1000), run)
    # The first epoch improves on nothing; then the counter has to exceed 5.
    assert int(metrics["epochs"]) == 7
    assert calls == 1 + 7 * 2  # one begins; each epoch is one slice and its end
    assert int(metrics["gradient_steps"]) == 7 * 4  # 800 rows in minibatches of 256
    for a, b in zip(jax.tree.leaves(state.members.params), jax.tree.leaves(fitted.members.params)):
        np.testing.assert_array_equal(a, b)


def test_every_member_ends_at_its_own_best_snapshot_and_the_best_are_elites():
    # A large step size makes errors jump, so the last weights are not the best ones.
    model, run, state = build(model_learning_rate=0.05, model_batch_size=128)
    buffer, key = buffer_of(800), jax.random.key(1)
    split = split_rows(jax.random.split(key)[0], 800)
    errors, best, best_params = [], np.full(3, np.inf), [None] * 3
    state, _ = run(key, state, buffer)
    while (program := model.fit.due(state)) != FINISHED:
        if program == fitting.END_EPOCH:
            mse = np.asarray(HELD_OUT_ERROR(split, buffer, model_state.belief(state)))
            errors.append(mse)
            for m in range(3):
                if mse[m] < 0.99 * best[m]:
                    best[m] = mse[m]
                    best_params[m] = jax.tree.map(lambda leaf, m=m: np.asarray(leaf[m]), state.members.params)
        state, report = run(key, state, buffer)
    metrics = report.metrics
    assert len({int(np.argmin([mse[m] for mse in errors])) for m in range(3)}) > 1  # best at different epochs
    np.testing.assert_allclose(metrics["holdout_mse_per_member"], best, rtol=1e-5)
    for m in range(3):
        final = jax.tree.map(lambda leaf, m=m: np.asarray(leaf[m]), state.members.params)
        for a, b in zip(jax.tree.leaves(final), jax.tree.leaves(best_params[m])):
            np.testing.assert_array_equal(a, b)
    assert state.elites.tolist() == np.argsort(best)[:2].tolist()


def test_weights_and_moments_stay_warm_between_fits():
    model, run, state = build(**SLICED)
    buffer = buffer_of(600)
    first, metrics_1, _ = fit_to_end(model, jax.random.key(1), state, buffer, run)
    start, _ = run(jax.random.key(2), first, buffer)
    second, metrics_2, _ = fit_to_end(model, jax.random.key(2), first, buffer, run)
    total = int(metrics_1["gradient_steps"]) + int(metrics_2["gradient_steps"])
    assert second.members.opt_state[0].count.tolist() == [total] * 3
    assert int(second.shared.opt_state[0].count) == total
    for begun, ended in ((start.members, first.members), (start.shared, first.shared)):
        jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(begun), jax.tree.leaves(ended))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(first.members.opt_state))
    assert float(metrics_2["holdout_mse_elite_mean"]) < 2 * float(metrics_1["holdout_mse_elite_mean"])


def test_slices_of_any_size_do_the_same_work():
    def result(knobs):
        model, run, state = build(**knobs)
        return fit_to_end(model, jax.random.key(1), state, buffer_of(600), run)

    small, metrics_small, calls_small = result(SINGLE)
    large, metrics_large, calls_large = result(SLICED)  # epochs of 8 minibatches: two slices and two single ones
    epochs = int(metrics_small["epochs"])
    assert (calls_small, calls_large) == (1 + epochs * 9, 1 + epochs * 5)
    assert int(metrics_small["gradient_steps"]) == int(metrics_large["gradient_steps"])
    for a, b in zip(jax.tree.leaves(small.members), jax.tree.leaves(large.members)):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("most", [1, 7, 8, 20])
def test_a_fit_takes_at_most_the_steps_that_it_is_given(most):
    model, run, state = build(fit_max_gradient_steps=most, fit_slice_minibatches=3, model_batch_size=32)
    fitted, metrics, _ = fit_to_end(model, jax.random.key(1), state, buffer_of(300), run)
    assert int(metrics["gradient_steps"]) == most
    assert int(metrics["epochs"]) == -(-most // 8)  # the last one may be cut short
    assert fitted.members.opt_state[0].count.tolist() == [most] * 3
    assert np.isfinite(metrics["holdout_mse_per_member"]).all()


def test_loops_over_minibatches_have_a_static_length():
    """A GPU would wait for the host at every turn of any other loop."""
    model, _, state = build()
    program = jax.make_jaxpr(model.fit.functions[fitting.SLICE])(jax.random.key(0), state, buffer_of(300))
    scans = [equation for equation in program.eqns if equation.primitive.name == "scan"]
    (over_minibatches,) = (scan for scan in scans if scan.params["length"] == 16)
    assert "while[" not in str(over_minibatches.params["jaxpr"])
    assert "while[" in str(program)  # rows are found by walks of unknown length, before the first minibatch


def test_one_trace_of_each_program_while_the_data_grow():
    """Here, and in the other tests that share these programs."""
    (model, run, state), buffer = build(**SLICED), buffer_of(300)
    for i in range(4):
        state, _, _ = fit_to_end(model, jax.random.key(i), state, buffer, run)
        buffer = replay.add(buffer, real_rows(250, seed=i))
    assert sorted(run.traced) == [0, 1, 2, 3]


@pytest.mark.parametrize(("num_rows", "value"), [(400, 2.0), (400, 0.45), (5000, 0.45), (5000, 8.907463)])
def test_a_constant_observation_is_harmless(num_rows, value):
    """Sums of 0.45 are rounded: their mean is not 0.45, and the difference must not be taken for a spread."""
    rows = real_rows(num_rows)
    rows = rows.replace(
        obs=rows.obs * [1, 1, 0] + np.float32([0, 0, value]),
        next_obs=rows.next_obs * [1, 1, 0] + np.float32([0, 0, value]),
    )
    buffer = replay.add(replay.init(SPEC, 5000), jax.tree.map(lambda leaf: leaf.astype(np.float32), rows))
    model, run, state = build(fit_max_gradient_steps=200)
    state, metrics, _ = fit_to_end(model, jax.random.key(0), state, buffer, run)
    assert float(state.inputs.std[2]) == 1.0
    assert np.isfinite(metrics["holdout_mse_per_member"]).all()
    predict = jax.jit(model.predict)
    mean, log_var = predict(model.belief(state), rows.obs[:5].astype(np.float32), rows.action[:5])
    assert np.isfinite(mean).all()
    assert np.isfinite(log_var).all()
    # Imagined states carry the model's noise in this dimension too, and must not be somewhere else for it.
    moved = rows.obs[:5].astype(np.float32) + np.float32([0, 0, 0.01])
    noisy, _ = predict(model.belief(state), moved, rows.action[:5])
    np.testing.assert_allclose(noisy, mean, atol=0.1)


# -- faults --------------------------------------------------------------------------------------------------------

FIRST_FAULT = jax.jit(health.first_fault)
WATCHED = {"fit_slice_minibatches": 3, "model_batch_size": 32, "fit_max_gradient_steps": 20}


def fault_text(state, buffer, spoil=lambda state: state, at_step=0):
    """What the first program with a fault says; `spoil` changes the state once so many steps were taken."""
    model, run, _ = build(**WATCHED)
    state, report = run(jax.random.key(1), state, buffer)
    spoilt = False
    while (text := health.describe(FIRST_FAULT(report.watched))) is None and model.fit.due(state) != FINISHED:
        if not spoilt and int(state.fit.num_steps) >= at_step:
            state, spoilt = spoil(state), True
        state, report = run(jax.random.key(1), state, buffer)
    return text


def with_params(state, params):
    return state.replace(members=state.members.replace(params=params))


def planted(params, value, member, name="layer_1", part="kernel"):
    params = jax.tree.map(lambda leaf: leaf, params)
    params[name][part] = params[name][part].at[member, 1].set(value)
    return params


def test_a_sound_fit_has_no_fault():
    _, _, state = build(**WATCHED)
    assert fault_text(state, buffer_of(300)) is None


@pytest.mark.parametrize("member", [0, 2])
@pytest.mark.parametrize(("value", "word"), [(np.nan, "nan"), (np.inf, "(nan|inf)")])
def test_one_weight_of_a_member(member, value, word):
    _, _, state = build(**WATCHED)
    text = fault_text(
        state, buffer_of(300), lambda s: with_params(s, planted(s.members.params, value, member)), at_step=3
    )
    assert re.fullmatch(rf"member {member}'s loss is not finite \({word}\) at fit step 4", text)


def test_a_member_spoilt_before_its_held_out_rows_are_predicted():
    """Step 8 ends the epoch: not a loss but the held-out error shows it, and it is not a mere lack of improvement."""
    _, _, state = build(**WATCHED)
    text = fault_text(state, buffer_of(300), lambda s: with_params(s, planted(s.members.params, np.nan, 1)), at_step=8)
    assert text == "member 1's held-out error is not finite (nan) at fit step 8"


def test_a_second_moment_that_has_overflowed():
    def spoil(state):
        adam, *rest = state.members.opt_state
        return state.replace(
            members=state.members.replace(opt_state=(adam._replace(nu=planted(adam.nu, np.inf, 2)), *rest))
        )

    _, _, state = build(**WATCHED)
    text = fault_text(state, buffer_of(300), spoil)
    assert text == "a moment of Adam of member 2 is not finite (inf) at fit step 8"


@pytest.mark.parametrize("where", ["obs", "action", "reward", "next_obs"])
@pytest.mark.parametrize(("value", "what"), [(np.nan, "is not finite (nan)"), (-2e16, "has exploded (2e+16)")])
@pytest.mark.parametrize("slot", [0, 299])
def test_one_real_row_before_anything_is_learnt_from_it(where, value, what, slot):
    _, _, state = build(**WATCHED)
    buffer = buffer_of(300)
    leaf = getattr(buffer.rows, where)
    spoilt = buffer.replace(rows=buffer.rows.replace(**{where: leaf.at[slot].set(value)}))
    assert fault_text(state, spoilt) == f"a real row {what} at fit step 1"
    # what is not in force is no matter
    beyond = buffer.replace(rows=buffer.rows.replace(**{where: leaf.at[1999].set(value)}))
    assert int(fault_at_start(state, beyond).update) == -1


def fault_at_start(state, buffer):
    return FIRST_FAULT(build(**WATCHED)[1](jax.random.key(1), state, buffer)[1].watched)


def test_a_full_buffer_is_checked_to_its_last_slot():
    _, _, state = build(**WATCHED)
    buffer = replay.add(replay.add(replay.init(SPEC, 1300), real_rows(1100)), real_rows(400))  # wrapped around
    assert int(fault_at_start(state, buffer).update) == -1
    spoilt = buffer.rows.replace(reward=buffer.rows.reward.at[1299].set(jnp.nan))
    assert int(fault_at_start(state, buffer.replace(rows=spoilt)).update) == 0


def test_seeds_side_by_side_have_a_fault_each():
    model, _, state = build(**WATCHED)
    buffers = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), buffer_of(300))
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), state)
    key = jax.random.split(jax.random.key(1), 3)
    first_fault = jax.jit(jax.vmap(lambda report: health.first_fault(report.watched)))
    begun, report = jax.jit(jax.vmap(model.fit.functions[0]))(key, states, buffers)
    assert first_fault(report).update.tolist() == [-1] * 3
    params = jax.tree.map(lambda leaf: leaf, begun.members.params)
    params["mean"]["bias"] = params["mean"]["bias"].at[1, 2, 0].set(jnp.nan)
    _, report = jax.jit(jax.vmap(model.fit.functions[fitting.SLICE]))(key, with_params(begun, params), buffers)
    fault = first_fault(report)
    assert fault.update.tolist() == [-1, 0, -1]
    one = jax.tree.map(lambda leaf: leaf[1], fault)
    assert health.describe(one).startswith("member 2's loss")
