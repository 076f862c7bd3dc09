import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from mbpo_jax import health, replay, theory
from mbpo_jax.driver.config import Diverged
from mbpo_jax.driver.trained import load_trained
from mbpo_jax.studies import policy_shift
from mbpo_jax.studies.policy_shift import Measurement, gaussian_kl

UPDATES = 30  # between measurements; another number is another program to compile


def kl_by_integration(mean, std, other_mean, other_std):
    p, q = stats.norm(mean, std), stats.norm(other_mean, other_std)
    value, _ = integrate.quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), mean - 12 * std, mean + 12 * std)
    return value


def test_divergence_of_gaussians_equals_its_integral_in_either_direction():
    for one, other in (((0.3, 0.5), (-0.2, 1.5)), ((-0.2, 1.5), (0.3, 0.5))):
        args = [jnp.asarray([value]) for value in (one[0], np.log(one[1]), other[0], np.log(other[1]))]
        assert float(gaussian_kl(*args)) == pytest.approx(kl_by_integration(*one, *other), rel=1e-5)


def test_divergence_adds_up_over_actions_and_is_zero_of_equals():
    mean, log_std = jnp.asarray([[0.1, -0.4]]), jnp.asarray([[0.2, -1.0]])
    np.testing.assert_allclose(gaussian_kl(mean, log_std, mean, log_std), [0.0], atol=1e-7)
    shifted = gaussian_kl(mean, log_std, mean + 1.0, log_std)
    np.testing.assert_allclose(shifted, [0.5 * (np.exp(-0.4) + np.exp(2.0))], rtol=1e-6)


def test_lines_and_lengths_worked_by_hand():
    """loss = 2 + 3 KL and unexplained = 0.01 + 0.2 shift; KL 2 s^2 is a shift of s."""
    shifts = [0.0, 0.05, 0.1]
    measured = [Measurement(i, 2 * s**2, 2.0 + 6.0 * s**2, 0.01 + 0.2 * s) for i, s in enumerate(shifts)]
    line = policy_shift._line(measured, 0.99, 1000)
    assert line["loss_at_data_policy"] == pytest.approx(2.0)
    assert line["loss_per_nat"] == pytest.approx(3.0)
    assert line["error_at_data_policy"] == pytest.approx(0.01)
    assert line["error_per_shift"] == pytest.approx(0.2)
    # ln(0.02 / 0.05) / ln 0.99 = 91.2 and ln(0.03 / 0.1) / ln 0.99 = 119.8, rounded up; without a shift none
    assert line["recommended_lengths"] == [0, 92, 120]
    assert line["policy_shifts"] == pytest.approx(shifts)
    assert policy_shift._line(measured, 0.99, 100)["recommended_lengths"] == [0, 92, 100]


def test_the_first_dot_is_the_data_policy_and_the_line_goes_through_it():
    """A line through all dots would start at 2.8 and be flatter."""
    measured = [Measurement(0, 0.0, 1.0, 0.1), Measurement(1, 1.0, 5.0, 0.3), Measurement(2, 4.0, 5.0, 0.3)]
    line = policy_shift._line(measured, 0.99, 1000)
    assert line["loss_at_data_policy"] == 1.0
    assert line["loss_per_nat"] == pytest.approx((1 * 4 + 4 * 4) / (1 + 16))
    assert line["error_at_data_policy"] == 0.1
    one, two = np.sqrt(0.5), np.sqrt(1 - np.exp(-4.0))
    assert line["error_per_shift"] == pytest.approx(0.2 * (one + two) / (one**2 + two**2))


def test_where_the_policy_did_not_move_there_is_no_slope():
    measured = [Measurement(0, 0.0, 1.0, 0.1), Measurement(1, 0.0, 5.0, 0.3)]
    assert policy_shift._line(measured, 0.99, 1000)["loss_per_nat"] == 0.0


@pytest.fixture(scope="module")
def finding(run_dir):
    return policy_shift.study(run_dir, num_rows=(40, 80), num_measurements=2, updates_between=UPDATES, visited_steps=25)


def test_a_run_is_studied_from_its_files(finding):
    assert [curve["rows"] for curve in finding.numbers["curves"]] == [40, 80]
    for curve in finding.numbers["curves"]:
        first, *later = curve["measurements"]
        assert (first["num_updates"], first["kl"]) == (0, pytest.approx(0.0, abs=1e-9))
        assert [point["num_updates"] for point in later] == [UPDATES, 2 * UPDATES]
        assert all(point["kl"] > 1e-4 for point in later)  # learning rate 3e-4: it moved
        assert all(point["loss"] > 0.0 and 0.0 <= point["unexplained"] <= 1.0 for point in curve["measurements"])
        assert len(curve["recommended_lengths"]) == 3
    assert "80 rows: loss" in finding.sentence


def test_the_figure_shows_the_measurements(finding):
    loss_axes, share_axes = finding.figure.axes
    for axes, x_of, y in (
        (loss_axes, lambda point: point["kl"], "loss"),
        (share_axes, lambda point: theory.distance_of_kl(point["kl"]), "unexplained"),
    ):
        dots = [line for line in axes.get_lines() if line.get_marker() == "."]
        for line, curve in zip(dots, finding.numbers["curves"], strict=True):
            np.testing.assert_allclose(line.get_xdata(), [x_of(point) for point in curve["measurements"]])
            np.testing.assert_allclose(line.get_ydata(), [point[y] for point in curve["measurements"]])


@pytest.fixture(scope="module")
def experiment(run_dir):
    return policy_shift._Experiment(load_trained(run_dir), 80, 25)


def test_the_models_error_is_that_of_its_elites(experiment):
    """Against plain NumPy, on a model whose members differ."""
    model = experiment._world.init(jax.random.key(3))
    model = model.replace(elites=jnp.asarray([2, 0]))
    rows = experiment._data
    mean, _ = experiment._world.predict(experiment._world.belief(model), rows.obs, rows.action)
    target = np.concatenate([np.asarray(rows.reward)[:, None], np.asarray(rows.next_obs - rows.obs)], 1)
    squares = np.mean([np.square(np.asarray(mean[i]) - target).mean(0) for i in (2, 0)], axis=0)
    variances = jnp.asarray([0.0, *(4.0 * squares[1:4]), 1e-3 * squares[4]])
    _, loss, unexplained = experiment._measure(experiment._data_actor, model, rows, variances)
    assert float(loss) == pytest.approx(squares.mean(), rel=1e-5)
    # the first target never varies and does not count; a quarter each; an error beyond the variance counts as all of it
    assert float(unexplained) == pytest.approx((0.25 * 3 + 1.0) / 4, rel=1e-5)


def test_what_is_to_be_explained_is_the_variance_of_the_changes(experiment):
    rows = jax.tree.map(np.asarray, experiment._data)
    targets = np.concatenate([rows.reward[:, None], rows.next_obs - rows.obs], 1)
    np.testing.assert_allclose(experiment._variances, targets.var(0), rtol=1e-4, atol=1e-9)


def test_the_policy_learns_from_imagined_rows_as_well(run_dir, monkeypatch):
    draw, seen = policy_shift.phases.draw_mixed, []

    def spy(key, real, imagined, *rest):
        seen.append((replay.capacity(real), replay.capacity(imagined)))
        return draw(key, real, imagined, *rest)

    monkeypatch.setattr(policy_shift.phases, "draw_mixed", spy)
    policy_shift._Experiment(load_trained(run_dir), 80, 25).measure(40, 1, UPDATES)
    assert seen == [(80, policy_shift.START_ROWS)]


def test_learning_changes_the_policy_and_leaves_data_and_model_alone(experiment):
    before = jax.tree.map(np.asarray, experiment._data)
    measured = experiment.measure(40, 1, UPDATES)
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, experiment._data))
    assert measured[0].kl == pytest.approx(0.0, abs=1e-9) and measured[1].kl > 0.0


def test_the_divergence_is_of_the_moving_policy_from_the_data_policy(experiment):
    rows, model = experiment._data, experiment._world.init(jax.random.key(3))
    moved = jax.tree.map(lambda leaf: 1.5 * leaf + 0.1, experiment._data_actor)
    kl, _, _ = experiment._measure(moved, model, rows, jnp.ones(5))
    of_moved, of_data = (experiment._distribution(actor, rows.obs) for actor in (moved, experiment._data_actor))
    there, back = gaussian_kl(*of_moved, *of_data).mean(), gaussian_kl(*of_data, *of_moved).mean()
    assert float(kl) == pytest.approx(float(there), rel=1e-5)
    assert abs(float(there - back)) > 0.1 * float(there)


def test_a_model_is_fitted_to_the_end_on_exactly_the_rows_it_is_given(experiment):
    real = replay.add(replay.init(experiment._trained.spec, 80), jax.tree.map(lambda leaf: leaf[:60], experiment._data))
    model = experiment._fit(real)
    assert (int(model.fit.num_rows), bool(model.fit.running)) == (60, False)
    assert int(model.fit.epoch) == 2  # as `tiny_runs` says
    begun = experiment._world.init(jax.random.fold_in(experiment._root, policy_shift.FIT))
    pairs = zip(jax.tree.leaves(begun.members.params), jax.tree.leaves(model.members.params))
    assert not any(np.array_equal(before, after) for before, after in pairs)


def test_every_measurement_is_on_states_that_the_policy_of_the_moment_visits(experiment, monkeypatch):
    acting, judged = [], []
    explore, judge, collect = experiment._exploring, experiment._measure, policy_shift.episodes.collect
    visits = []

    def collect_and_note(*args):
        visits.append(collect(*args))
        return visits[-1]

    monkeypatch.setattr(experiment, "_exploring", lambda actor: acting.append(actor) or explore(actor))
    monkeypatch.setattr(experiment, "_measure", lambda *args: judged.append(args) or judge(*args))
    monkeypatch.setattr(policy_shift.episodes, "collect", collect_and_note)
    measured = experiment.measure(40, 2, UPDATES)
    assert len(acting) == len(judged) == 3
    for actor, (judged_actor, _, rows, _), (visited, _) in zip(acting, judged, visits):
        assert actor is judged_actor
        assert rows is visited
    np.testing.assert_array_equal(jax.tree.leaves(acting[0])[0], jax.tree.leaves(experiment._data_actor)[0])
    kernels = [np.asarray(jax.tree.leaves(actor)[1]) for actor in acting]
    assert not np.array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[1], kernels[2])
    assert judged[0][1] is judged[2][1]  # the model is fitted once
    assert [point.num_updates for point in measured] == [0, UPDATES, 2 * UPDATES]


def test_learning_that_diverges_is_reported_with_its_rows(experiment):
    watched = [health.watch({"the loss": jnp.asarray(value)}) for value in (1.0, jnp.nan)]
    fine, fault = (health.first_fault([group]) for group in watched)
    experiment._check([fine, fine], "when")
    with pytest.raises(Diverged, match=r"the loss is not finite .* \(300 rows, update 0 to 5\)"):
        experiment._check([fine, fault], "300 rows, update 0 to 5")


@pytest.mark.parametrize("discount", [0.0, 1.0])
def test_a_discount_without_a_bound_is_refused_before_anything_is_played(run_dir, monkeypatch, discount):
    trained = load_trained(run_dir)
    agent = dataclasses.replace(trained.config.agent, discount=discount)
    of_discount = trained._replace(config=dataclasses.replace(trained.config, agent=agent))
    monkeypatch.setattr(policy_shift, "load_trained", lambda *_: of_discount)
    monkeypatch.setattr(policy_shift, "_Experiment", None)
    with pytest.raises(ValueError, match=f"--discount of the run must lie between 0 and 1, got {discount:g}"):
        policy_shift.study(run_dir)


def test_a_run_of_another_agent_is_refused(modelless_run):
    with pytest.raises(ValueError, match="the run must have a model"):
        policy_shift.study(modelless_run)
