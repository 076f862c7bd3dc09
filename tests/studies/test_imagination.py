import pytest

from mbpo_jax.driver.trained import load_trained
from mbpo_jax.studies import imagination


def test_a_model_that_was_never_fitted_or_is_half_fitted_is_refused(run_dir):
    with pytest.raises(ValueError, match="at step 40 none had been fitted; give another --step"):
        imagination.check(load_trained(run_dir, step=40))
    trained = load_trained(run_dir, step=80)
    imagination.check(trained)
    model = trained.state.model
    half = trained._replace(state=trained.state.replace(model=model.replace(fit=model.fit.replace(running=True))))
    with pytest.raises(ValueError, match="at step 80 a fit was under way"):
        imagination.check(half)
