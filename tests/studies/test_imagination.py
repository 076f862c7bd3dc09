import re
import types

import jax
import pytest
import tiny_runs

from mbpo_jax.driver.trained import Trained, load_trained
from mbpo_jax.models.learned_termination import ModelWithEnds
from mbpo_jax.studies import imagination


def of_row(row, step):
    """A checkpoint of an algorithm in its tiny config, whose arrays have only shapes."""
    algorithm = tiny_runs.build(row)
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    return Trained(types.SimpleNamespace(algorithm=row), None, 0, step, None, algorithm, state, None)


def test_a_model_of_sequences_is_fitted_from_its_first_steps_on():
    with pytest.raises(ValueError, match="at step 39 none had been fitted; give another --step"):
        imagination.check(of_row("sac_svg", step=39))
    imagination.check(of_row("sac_svg", step=40))


def test_a_model_whose_classifier_of_ends_was_still_to_be_fitted_is_refused():
    """The first fit's would say that nothing ends."""
    world = types.SimpleNamespace(fit=types.SimpleNamespace(num_rows=60, running=False))
    trained = of_row("mbpo", step=80)
    imagination.check_fitted(trained, ModelWithEnds(world=world, ends=None, pending=False))
    with pytest.raises(ValueError, match="at step 80 a fit was under way"):
        imagination.check_fitted(trained, ModelWithEnds(world=world, ends=None, pending=True))


def test_the_algorithms_that_a_refusal_names_are_not_refused():
    """SVG has a model, but imagines nothing with it."""
    with pytest.raises(ValueError, match="got svg") as caught:
        imagination.check(of_row("svg", step=40))
    named = re.search(r"one of (.*)\)", str(caught.value)).group(1).split(", ")
    assert {"mbpo", "mopo", "pets", "sac_svg", "double_horizon"} <= set(named)
    assert not {"svg", "sac", "dyna_q", "bc"} & set(named)


def test_a_model_that_was_never_fitted_or_is_half_fitted_is_refused(run_dir):
    with pytest.raises(ValueError, match="at step 40 none had been fitted; give another --step"):
        imagination.check(load_trained(run_dir, step=40))
    trained = load_trained(run_dir, step=80)
    imagination.check(trained)
    model = trained.state.model
    half = trained._replace(state=trained.state.replace(model=model.replace(fit=model.fit.replace(running=True))))
    with pytest.raises(ValueError, match="at step 80 a fit was under way"):
        imagination.check(half)
