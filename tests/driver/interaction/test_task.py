import json
from contextlib import ExitStack

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from mbpo_jax import terminations
from mbpo_jax.algorithms import phases
from mbpo_jax.algorithms.mbpo import MbpoConfig
from mbpo_jax.algorithms.model_free import ModelFreeConfig
from mbpo_jax.algorithms.mve import MveConfig
from mbpo_jax.driver import setup
from mbpo_jax.driver.config import RunConfig
from mbpo_jax.driver.interaction.spaces import Spaces
from mbpo_jax.driver.interaction.task import (
    build,
    check_termination_fn,
    resolve,
    resolve_termination_fn,
    spec_of,
)
from mbpo_jax.launch import flags
from mbpo_jax.models import gaussian
from mbpo_jax.models.state import GaussianConfig
from mbpo_jax.types import Spec

SPACES = Spaces(11, np.float32([-0.1, 0.0]), np.float32([0.3, 2.0]), 1000)


def spec(termination_fn=None):
    return Spec(11, 2, termination_fn, max_episode_steps=1000)


def test_a_task_has_the_rule_that_the_knobs_name_and_none_where_there_is_no_such_knob():
    assert resolve("Hopper-v5", SPACES, MbpoConfig()) == (SPACES, spec(terminations.hopper))
    assert resolve("Hopper-v5", SPACES, MbpoConfig(termination_fn="never")).spec == spec(terminations.never)
    assert resolve("MyRobot-v0", SPACES, MbpoConfig()).spec == spec()
    assert resolve("Hopper-v5", SPACES, ModelFreeConfig()).spec == spec()
    with pytest.raises(ValueError, match="termination_fn 'mbpo_jax.terminations:lookup' must return bool"):
        resolve("Hopper-v5", SPACES, MbpoConfig(termination_fn="mbpo_jax.terminations:lookup"))


def test_termination_functions_by_name():
    assert resolve_termination_fn("never", "Whatever-v0") is terminations.never
    assert resolve_termination_fn("auto", "Hopper-v5") is terminations.hopper
    assert resolve_termination_fn("auto", "HalfCheetah-v5") is terminations.never
    # a name that is given wins over what is known
    assert resolve_termination_fn("mbpo_jax.terminations:ant", "Hopper-v5") is terminations.ant
    ended = resolve_termination_fn("auto", "mbpo_jax/AntTruncatedObs-v5")(None, None, jnp.zeros((1, 27)))
    assert ended.tolist() == [True]


@pytest.mark.parametrize(
    "name",
    ["", "never ", "hopper", "math", "math:", ":never", "math:pi", "math:nope", "no_such_module:f", ".x:f"],
)
def test_a_termination_function_that_cannot_be_had_is_refused(name):
    with pytest.raises(ValueError, match="termination_fn must be 'auto', 'never' or package.module:function") as caught:
        resolve_termination_fn(name, "Hopper-v5")
    assert f"got {name!r}" in str(caught.value)


def test_a_module_that_cannot_even_be_parsed_is_named_with_its_error(tmp_path, monkeypatch):
    (tmp_path / "half_written_rules.py").write_text("def ended(obs, action, next_obs:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"got 'half_written_rules:ended' \(SyntaxError"):
        resolve_termination_fn("half_written_rules:ended", "Hopper-v5")


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        (lambda obs, action, next_obs: next_obs[:, 1:2] > 0.2, r"got bool \[3, 1\]"),
        (lambda obs, action, next_obs: next_obs[:, 1], r"got float32 \[3\]"),
        (lambda obs, action, next_obs: next_obs[0, 1] > 0.2, r"got bool \[\]"),
        (lambda obs, action, next_obs: None, "got NoneType"),
        (lambda obs, action: obs[:, 0] > 0.0, "but it raised TypeError"),
        (lambda obs, action, next_obs: bool(next_obs[0, 0] > 0.0), "but it raised TracerBoolConversionError"),
    ],
)
def test_a_termination_function_of_another_form_is_refused_before_anything_is_trained(rule, complaint):
    with pytest.raises(ValueError, match=rf"termination_fn 'my:rule' must return bool \[3\] for 3 rows, .*{complaint}"):
        check_termination_fn(rule, "my:rule", Spec(4, 2))


def test_a_termination_function_of_the_right_form_is_taken():
    check_termination_fn(terminations.never, "never", Spec(4, 2))
    check_termination_fn(terminations.hopper, "auto", Spec(11, 3))


def cost_of_actions(obs, action, next_obs):
    return -jnp.sum(jnp.square(action), axis=1)


def test_a_known_reward_takes_the_place_of_the_learned_one():
    name = f"{__name__}:cost_of_actions"
    assert resolve("Pendulum-v1", SPACES, MveConfig(termination_fn="never")).spec.reward_fn is None
    task = resolve("Pendulum-v1", SPACES, MveConfig(termination_fn="never", reward_fn=name))
    world = gaussian.build(GaussianConfig(model_hidden_units=8, model_weight_decays=(0.0, 0.0)), task.spec)
    belief = world.belief(world.init(jax.random.key(0)))
    obs, action = jnp.ones((2, task.spec.obs_dim)), jnp.full((2, task.spec.action_dim), 0.5)
    _, reward, _ = phases.learned_dynamics(world, belief, task.spec).step_fn(jax.random.key(1), 0, obs, action)
    assert reward.tolist() == [-0.25 * task.spec.action_dim] * 2


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        (
            "nowhere:reward",
            "reward_fn must be 'learned' or package.module:function that can be imported, got 'nowhere:",
        ),
        ("mbpo_jax.terminations:hopper", r"reward_fn '\S+:hopper' must return float32 \[3\] for 3 rows, got bool"),
    ],
)
def test_a_reward_function_that_is_none_is_refused(name, complaint):
    with pytest.raises(ValueError, match=complaint):
        resolve("Pendulum-v1", SPACES, MveConfig(termination_fn="never", reward_fn=name))


def test_an_unknown_environment_is_told_how_to_pass_a_termination_function():
    assert resolve_termination_fn("auto", "MyRobot-v0") is None
    run = RunConfig(env="MyRobot-v0")
    with pytest.raises(ValueError) as caught:
        build(run, MbpoConfig(), spec_of(SPACES))
    for words in ("'MyRobot-v0'", "--termination_fn=package.module:function", "--termination_fn=never"):
        assert words in str(caught.value)


def test_where_no_model_is_learnt_an_environment_need_not_be_known():
    knobs = {"env": "MountainCarContinuous-v0", "max_episode_steps": 0}
    with ExitStack() as stack:
        unknown = setup.build(*flags.parse(tiny_runs.argv("unused", **knobs, real_fraction=1)), stack)
        assert [runner.phase.name for runner in unknown.programs.phases] == ["update_agent"]
        assert unknown.task.spec == Spec(2, 1, max_episode_steps=999)
        with pytest.raises(ValueError, match="termination_fn is not known .*'MountainCarContinuous-v0'"):
            setup.build(*flags.parse(tiny_runs.argv("unused", **knobs)), stack)


# -- in config.json ------------------------------------------------------------------------------------------------


def test_a_run_keeps_its_spaces_and_is_not_resumed_in_others(tmp_path):
    tiny_runs.train(tmp_path, tiny_runs.SAC, num_steps=2)
    path = tmp_path / "config.json"
    value = json.loads(path.read_text())
    ones = [1.0] * 3
    kept = {"obs_dim": 11, "action_low": [-1.0] * 3, "action_high": ones, "max_episode_steps": 5}
    kept |= {"action_dtype": "<f4"}
    assert value["task"] == kept
    path.write_text(json.dumps(value | {"task": kept | {"obs_dim": 12, "action_high": [1.0, 1.0, 2.0]}}))
    before = path.read_bytes()
    with pytest.raises(ValueError) as caught:
        tiny_runs.train(tmp_path, tiny_runs.SAC, num_steps=3)
    assert str(caught.value) == (
        f"env 'Hopper-v5' is not what run_dir '{tmp_path}' was trained in: "
        "action_high was [1.0, 1.0, 2.0], is [1.0, 1.0, 1.0]; obs_dim was 12, is 11"
    )
    assert path.read_bytes() == before
    del value["task"]  # a run of an older version
    path.write_text(json.dumps(value))
    assert tiny_runs.train(tmp_path, tiny_runs.SAC, num_steps=3).finished
    assert json.loads(path.read_text())["task"] == kept
