import io
import json
import os
import shutil
import struct
import warnings
import zipfile
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from mbpo_jax import terminations
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.config import StorageFailure
from mbpo_jax.driver.interaction import evaluate, policy
from mbpo_jax.driver.interaction.environment import EVALUATION, Environment
from mbpo_jax.driver.interaction.policy import Policy, load_policy, policy_path, save_policy
from mbpo_jax.types import Algorithm


@pytest.fixture
def copy(mbpo_run, tmp_path):
    """A run directory that may be damaged."""
    for name in ("config.json", "policies"):
        source = mbpo_run / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    return tmp_path


def observations(num, dims, scale=1.0):
    return scale * np.random.default_rng(1).normal(size=(num, dims)).astype(np.float32)


def evaluations(run_dir, seed):
    return {line["step"]: line for line in tiny_runs.lines(run_dir, seed) if "eval/return_mean" in line}


# -- acting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("run", "seed"), [("mbpo_run", 0), ("mbpo_run", 2), ("sac_run", 1)])
def test_a_loaded_policy_repeats_the_last_evaluation_bit_for_bit(request, run, seed):
    run_dir = request.getfixturevalue(run)
    knobs = tiny_runs.MBPO if run == "mbpo_run" else tiny_runs.SAC
    env = Environment(knobs["env"], seed, EVALUATION, knobs["max_episode_steps"])
    outcome = evaluate.evaluate(load_policy(run_dir, seed), env, 0, knobs["eval_episodes"])
    env.close()
    line = evaluations(run_dir, seed)[knobs["num_steps"]]
    assert outcome.metrics() == {name: value for name, value in line.items() if name.startswith("eval/")}


def test_a_loaded_policy_acts_as_the_state_in_the_checkpoint_does(mbpo_run):
    algorithm, spec = tiny_runs.build_mbpo()
    acting = policy.deterministic(algorithm)
    obs = observations(20, spec.obs_dim)
    for seed in (0, 1):
        actor = tiny_runs.saved(mbpo_run).arrays[str(seed)]["state"]["agent"]["actor"]["params"]
        low, high = np.float32([-3.0]), np.float32([3.0])
        in_memory, loaded = Policy(acting, actor, low, high), load_policy(mbpo_run, seed)
        actions = [loaded(o) for o in obs]
        assert all(action.dtype == np.float32 and action.shape == (1,) for action in actions)
        tiny_runs.assert_same_bits(actions, [in_memory(o) for o in obs])
        assert np.std(actions) > 0.0
    assert not np.array_equal(load_policy(mbpo_run, 0)(obs[0]), load_policy(mbpo_run, 1)(obs[0]))


def test_evaluation_does_not_explore(mbpo_run):
    algorithm, _ = tiny_runs.build_mbpo()
    loaded, obs = load_policy(mbpo_run, 0), observations(10, 4)
    actor, bounds = loaded.actor, (np.float32([-3.0]), np.float32([3.0]))
    network = actor["_Mlp_0"]
    hidden = np.maximum(obs @ network["Dense_0"]["kernel"] + network["Dense_0"]["bias"], 0.0)
    mean = (hidden @ network["Dense_1"]["kernel"] + network["Dense_1"]["bias"])[:, :1]
    np.testing.assert_allclose([loaded.normalized_action(o) for o in obs], np.tanh(mean), rtol=1e-5, atol=1e-6)
    again = Policy(policy.deterministic(algorithm), actor, *bounds)
    tiny_runs.assert_same_bits([again(o) for o in obs], [loaded(o) for o in obs])


def test_the_best_policy_is_that_of_the_best_evaluation(tmp_path):
    tiny_runs.train(tmp_path, tiny_runs.SAC, seeds=3, eval_every_steps=3)
    returns = {step: line["eval/return_mean"] for step, line in evaluations(tmp_path, 3).items()}
    best = max(returns.values())
    assert returns[100] < best  # it is not the last one, else this would show nothing
    env = Environment("Hopper-v5", 3, EVALUATION, 5)
    for is_best, expected in ((True, best), (False, returns[100])):
        outcome = evaluate.evaluate(load_policy(tmp_path, 3, best=is_best), env, 0, 2)
        assert outcome.metrics()["eval/return_mean"] == expected
    env.close()


def test_the_first_seed_is_the_default(mbpo_run):
    obs = observations(1, 4)[0]
    tiny_runs.assert_same_bits(load_policy(mbpo_run)(obs), load_policy(str(mbpo_run), 0)(obs))


def test_actions_are_in_bounds_and_reach_them(sac_run):
    loaded = load_policy(sac_run, 1)
    actions = np.stack([loaded(o) for o in observations(200, 11, scale=1e4)])
    assert actions.shape == (200, 3)
    assert actions.min() == -1.0
    assert actions.max() == 1.0  # far out, tanh saturates


def test_bounds_are_the_environments_own(mbpo_run):
    loaded = load_policy(mbpo_run, 0)  # of an InvertedPendulum, whose actions are in [-3, 3]
    obs = observations(200, 4, scale=1e4)
    actions, normalized = np.stack([loaded(o) for o in obs]), np.stack([loaded.normalized_action(o) for o in obs])
    assert np.abs(normalized).max() == 1.0
    np.testing.assert_array_equal(actions, np.float32(3.0 * normalized.astype(np.float64)))
    assert np.abs(actions).max() == 3.0


class Counting:
    """An algorithm that carries how many steps the episode has had, and acts with it."""

    algorithm = Algorithm(
        init=None,
        actor=None,
        begin_episode=lambda key, actor: actor,
        act=lambda key, actor, carry, obs, explore: (0.1 * carry * np.ones(2, np.float32), carry + 1.0),
        phases=(),
        exploration_steps=1,
        replay_capacity=1,
    )


def test_what_is_carried_begins_anew_at_reset():
    acting = Policy(policy.deterministic(Counting.algorithm), np.float32(2.0), np.float32([-1, 0]), np.float32([1, 10]))
    first, second = acting(np.zeros(3)), acting(np.zeros(3))
    np.testing.assert_allclose(first, [0.2, 6.0], rtol=1e-6)
    np.testing.assert_allclose(second, [0.3, 6.5], rtol=1e-6)
    acting.reset()
    np.testing.assert_array_equal(acting(np.zeros(3)), first)


@pytest.mark.parametrize(
    ("obs", "what"),
    [
        (np.zeros((5, 11)), "got an array of shape (5, 11); call it once for each row of a batch"),
        (np.zeros(10), "got an array of shape (10,)"),
        (0.0, "got an array of shape ()"),
        ((np.zeros(11), {}), "got (obs, info), which reset returns: give it the first of them"),
        ({"obs": np.zeros(11)}, "got dict"),
        ([[0.0] * 5, [0.0] * 6], "got list"),
    ],
)
def test_what_is_not_one_observation_is_refused_with_its_length(sac_run, obs, what):
    with pytest.raises(ValueError, match="policy must be given one observation of 11 numbers") as caught:
        load_policy(sac_run, 1)(obs)
    assert what in str(caught.value)


def test_an_observation_without_an_action_is_refused(sac_run):
    with pytest.raises(ValueError, match="the policy's action is not finite for the observation"):
        load_policy(sac_run, 1)(np.full(11, np.nan))


@pytest.mark.parametrize(
    ("low", "high"), [(np.int64([[-2, 0]]), np.int64([[2, 9]])), (-0.1 * np.ones(2), 0.3 * np.ones(2))]
)
def test_actions_are_of_the_shape_and_type_of_the_space_and_inside(low, high):
    acting = Policy(policy.deterministic(Counting.algorithm), np.float32(-13.0), low, high)
    space = gymnasium.spaces.Box(low, high, dtype=low.dtype)
    taken = [acting(np.zeros(3)) for _ in range(27)]
    assert all(space.contains(action) for action in taken)
    assert (taken[0] == low).all() and (taken[-1] == high).all()


def test_a_loaded_policy_acts_in_the_space_of_its_environment(tmp_path):
    tiny_runs.train(tmp_path, tiny_runs.SAC, env="odd_worlds:odd/World-v0", max_episode_steps=0, num_steps=2, seeds=0)
    space = gymnasium.make("odd_worlds:odd/World-v0").action_space  # of shape [1, 2]
    assert space.contains(load_policy(tmp_path)(np.zeros(4)))
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["task"]["action_shape"]  # as older versions wrote it
    path.write_text(json.dumps(config))
    np.testing.assert_array_equal(load_policy(tmp_path)(np.zeros(4)).shape, (2,))
    tiny_runs.train(tmp_path, tiny_runs.SAC, env="odd_worlds:odd/World-v0", max_episode_steps=0, num_steps=3, seeds=0)


class Drawing:
    """An algorithm that draws its actions, and what it carries, whether it explores or not, as a planner would."""

    algorithm = Algorithm(
        init=None,
        actor=None,
        begin_episode=lambda key, actor: jax.random.uniform(key, (2,)),
        act=lambda key, actor, carry, obs, explore: (actor * (carry + jax.random.uniform(key, (2,))), carry),
        phases=(),
        exploration_steps=1,
        replay_capacity=1,
    )


def test_what_a_policy_draws_differs_between_steps_and_between_episodes_and_comes_again():
    acting = policy.deterministic(Drawing.algorithm)

    def actions(*episodes):
        drawing, drawn = Policy(acting, np.float32(0.5), -np.ones(2), np.ones(2)), []
        for episode in episodes:
            drawing.reset(episode)
            drawn += [drawing.normalized_action(np.zeros(3)).tolist() for _ in range(3)]
        return drawn

    drawn = actions(0, 1)
    assert len({tuple(action) for action in drawn}) == 6
    assert actions(0, 1) == drawn
    assert actions(1) == drawn[3:]
    counting_on = actions(0, None)
    assert counting_on == drawn
    assert actions(0, 0) == drawn[:3] * 2


def test_two_evaluations_of_a_policy_that_draws_agree():
    drawing = Policy(policy.deterministic(Drawing.algorithm), np.float32(0.5), -np.ones(2), np.ones(2))
    env = Environment("odd_worlds:odd/World-v0", 17, EVALUATION)
    outcomes = [evaluate.evaluate(drawing, env, 0, 3) for _ in range(2)]
    assert outcomes[0] == outcomes[1]
    assert len(set(outcomes[0].returns)) == 3
    env.close()


# -- files -------------------------------------------------------------------------------------------------------


def test_a_saved_policy_is_plain_arrays_with_what_acting_needs(mbpo_run):
    with np.load(policy_path(mbpo_run, 1), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    assert {"action_low", "action_high", "obs_dim"} < set(arrays)
    assert all(name.startswith("actor/") for name in arrays.keys() - {"action_low", "action_high", "obs_dim"})
    assert (arrays["action_low"].tolist(), arrays["action_high"].tolist(), arrays["obs_dim"]) == ([-3.0], [3.0], 4)
    assert not any("critic" in name or "nu" in name.split("/") for name in arrays)  # only what acting reads


def test_a_policy_is_written_whole_or_not_at_all(copy):
    path = policy_path(copy, 0)
    before = path.read_bytes()
    with tiny_runs.full_disk(1000), pytest.raises(OSError):
        save_policy(path, {"w": np.zeros(10_000)}, 4, np.zeros(1), np.ones(1))
    assert path.read_bytes() == before
    save_policy(path, {"w": np.zeros(10_000)}, 4, np.zeros(1), np.ones(1))
    assert path.read_bytes() != before
    assert {p.name for p in path.parent.iterdir()} == {f"seed_{s}{b}.npz" for s in range(3) for b in ("", "_best")}


def test_a_missing_run_or_seed_is_named(copy, tmp_path):
    with pytest.raises(StorageFailure, match=r"cannot read .*/nowhere/config.json"):
        load_policy(tmp_path / "nowhere")
    with pytest.raises(StorageFailure, match=r"cannot load a policy from .*/policies/seed_8.npz"):
        load_policy(copy, 8)
    policy_path(copy, 2, best=True).unlink()
    with pytest.raises(StorageFailure, match=r"cannot load a policy from .*/policies/seed_2_best.npz"):
        load_policy(copy, 2, best=True)
    load_policy(copy, 2)


def npz(arrays):
    made = io.BytesIO()
    np.savez(made, **arrays)
    return made.getvalue()


def npy(array, **kwargs):
    made = io.BytesIO()
    np.save(made, array, **kwargs)
    return made.getvalue()


def archive(**members):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return made.getvalue()


class Trap:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path):
        self._path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self._path),)


def damages(good, arrays, marker):
    """Name -> bytes that are no policy of this run."""
    kernel = next(name for name in arrays if name.endswith("kernel"))
    without_bounds = {name: value for name, value in arrays.items() if name != "action_low"}
    without_kernel = {name: value for name, value in arrays.items() if name != kernel}
    trap = np.array([Trap(marker)], dtype=object)
    return {
        "empty": b"",
        "text": b"this is no archive",
        "cut in half": good[: len(good) // 2],
        "cut at the end": good[:-3],
        "one array": npy(np.zeros(3)),
        "a pickle": npy(trap, allow_pickle=True),
        "a pickle inside": archive(**{f"{kernel}.npy": npy(trap, allow_pickle=True)}),
        "objects inside": npz(arrays | {kernel: np.array([None, 1], dtype=object)}),
        "an archive of something else": archive(**{"readme.txt": b"hello"}),
        "no bounds": npz(without_bounds),
        "no kernel": npz(without_kernel),
        "another kernel": npz(arrays | {kernel: np.zeros((2, 2), np.float32)}),
        "a kernel that would broadcast": npz(arrays | {kernel: arrays[kernel][:1]}),
        "doubles": npz(arrays | {kernel: arrays[kernel].astype(np.float64)}),
        "another algorithm's": npz({n: a for n, a in arrays.items() if "/" not in n} | {"actor/plan": np.zeros(3)}),
        "another array": npz(arrays | {"actor/extra/kernel": np.zeros(3, np.float32)}),
        "bounds that differ": npz(arrays | {"action_low": np.zeros(2, np.float32)}),
        "a matrix of bounds": npz(arrays | {n: np.zeros((1, 1), np.float32) for n in ("action_low", "action_high")}),
        "several sizes": npz(arrays | {"obs_dim": np.array([4, 4])}),
        "another size": npz(arrays | {"obs_dim": np.array(5)}),
        "a negative size": npz(arrays | {"obs_dim": np.array(-4)}),
        "a size that is no whole number": npz(arrays | {"obs_dim": np.array(4.0)}),
    }


def outcome(run_dir):
    """What loading the policy of seed 1 says: the policy, or the message of its StorageFailure."""
    try:
        return load_policy(run_dir, 1)
    except StorageFailure as error:
        return str(error)


def test_files_that_are_no_policy_are_refused_by_name_and_run_nothing(copy, tmp_path):
    path, marker = policy_path(copy, 1), tmp_path / "marker"
    good = path.read_bytes()
    with np.load(path) as file:
        arrays = dict(file)
    wrong = damages(good, arrays, marker)
    for damage, data in wrong.items():
        path.write_bytes(data)
        assert str(outcome(copy)).startswith(f"cannot load a policy from {path}: "), damage
    assert not marker.exists()
    np.load(io.BytesIO(wrong["a pickle"]), allow_pickle=True)
    assert marker.exists()  # the trap does work
    path.write_bytes(good)
    load_policy(copy, 1)


# -- the task that a policy was trained for ----------------------------------------------------------------------


def rewritten(run_dir, **changes):
    """Changes config.json: sections, or knobs of sections."""
    path = run_dir / "config.json"
    value = json.loads(path.read_text())
    for section, knobs in changes.items():
        value[section] = value[section] | knobs
    path.write_text(json.dumps(value))


def test_a_policy_of_a_run_that_kept_no_task_loads_from_its_arrays(copy):
    obs = observations(3, 4)
    before = [load_policy(copy)(o) for o in obs]
    value = json.loads((copy / "config.json").read_text())
    del value["task"]
    (copy / "config.json").write_text(json.dumps(value))
    tiny_runs.assert_same_bits([load_policy(copy)(o) for o in obs], before)


@pytest.mark.parametrize(
    "task", [{"obs_dim": 5}, {"action_low": [-3.5]}, {"action_high": [3.0, 3.0]}, {"action_low": "none"}]
)
def test_a_policy_of_other_spaces_than_the_run_kept_is_refused(copy, task):
    rewritten(copy, task=task)
    with pytest.raises(StorageFailure, match="cannot load a policy from .*seed_0.npz: ValueError"):
        load_policy(copy)


def planning(build):
    """An algorithm whose actions depend on where episodes end, as those of a planner do."""

    def built(config, spec):
        algorithm = build(config, spec)

        def act(key, actor, carry, obs, explore):
            action, carry = algorithm.act(key, actor, carry, obs, explore)
            ends = spec.termination_fn(obs[None], action[None], obs[None])[0]
            return jnp.where(ends, 1.0, action), carry

        return algorithm._replace(act=act)

    return built


def test_a_rule_of_ones_own_is_asked_for_where_a_policy_plans_with_it_and_nowhere_else(copy, monkeypatch):
    obs, named = observations(1, 4)[0], {"algorithm": {"termination_fn": "no_such_module:ends"}}
    known = load_policy(copy).normalized_action(obs)
    rewritten(copy, **named)
    tiny_runs.assert_same_bits(load_policy(copy).normalized_action(obs), known)  # it looks at observations alone
    entry = REGISTRY["mbpo"]
    monkeypatch.setitem(REGISTRY, "mbpo", entry._replace(build=planning(entry.build)))
    with pytest.raises(ValueError, match="termination_fn must be given .*'no_such_module:ends'"):
        load_policy(copy)
    ends, never = (lambda obs, action, next_obs: next_obs[:, 0] < 1e9), terminations.never
    assert load_policy(copy, termination_fn=ends).normalized_action(obs) == 1.0
    tiny_runs.assert_same_bits(load_policy(copy, termination_fn=never).normalized_action(obs), known)


def test_a_planning_policy_ends_imagined_episodes_by_the_rule_that_is_known(copy, monkeypatch):
    entry = REGISTRY["mbpo"]
    monkeypatch.setitem(REGISTRY, "mbpo", entry._replace(build=planning(entry.build)))
    fallen, upright = np.float32([0.0, 1.0, 0.0, 0.0]), np.zeros(4, np.float32)
    loaded = load_policy(copy)  # of an InvertedPendulum
    assert loaded.normalized_action(fallen) == 1.0
    assert loaded.normalized_action(upright) != 1.0


# -- archives that claim more than they are ----------------------------------------------------------------------


def members(arrays):
    """Name -> bytes of what `np.savez` puts into an archive."""
    return {f"{name}.npy": npy(value, allow_pickle=False) for name, value in arrays.items()}


def claiming(shape, dtype="<f4"):
    """An array of no bytes that says it has a shape."""
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, {"descr": dtype, "fortran_order": False, "shape": shape})
    return made.getvalue()


def archive_of(files, compression=zipfile.ZIP_STORED):
    made = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w", compression) as file:
        warnings.simplefilter("ignore")  # a name may come twice
        for name, data in files:
            file.writestr(name, data)
    return made.getvalue()


def overlapping(files, num_copies):
    """The last file of an archive listed so many times, under names of the same length: as some ZIP bombs are made."""
    data = archive_of(files)
    entry = data.rindex(b"PK\x01\x02")
    end = data.rindex(b"PK\x05\x06")
    listed = data[data.index(b"PK\x01\x02") : end] + data[entry:end] * num_copies
    count, offset = len(files) + num_copies, data.index(b"PK\x01\x02")
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(listed), offset, 0)
    return data[:offset] + listed + tail


def hostile(arrays, kernel):
    """What is wrong -> an archive, and words of the refusal."""
    good = members(arrays)
    others = [(name, data) for name, data in good.items() if name != f"{kernel}.npy"]
    huge = good[f"{kernel}.npy"] + bytes(10**7)  # deflated to a thousandth

    def with_kernel(data):
        return archive_of([*others, (f"{kernel}.npy", data)])

    return {
        "deflated": (archive_of(good.items(), zipfile.ZIP_DEFLATED), "compressed"),
        "a bomb": (archive_of([*others, (f"{kernel}.npy", huge)], zipfile.ZIP_DEFLATED), "compressed"),
        "packed harder": (archive_of(good.items(), zipfile.ZIP_LZMA), "compressed"),
        "overlapping": (overlapping(list(good.items()), 1000), "claim more than the"),
        "a terabyte": (with_kernel(claiming((10**6, 10**6))), "claims to be float32(1000000, 1000000)"),
        "more than any machine": (with_kernel(claiming((2**62, 2**62))), "claims to be"),
        "a negative shape": (with_kernel(claiming((-1, -1)) + bytes(4)), "claims to be"),
        "a shape of nothing": (with_kernel(claiming((0, 2**62))), "where float32"),
        "objects": (with_kernel(claiming((1,), "|O") + b"cos\nsystem\n"), "unpickling"),
        "objects in a record": (with_kernel(claiming((1,), [("x", "|O")])), "unpickling"),
        "bytes too many": (with_kernel(good[f"{kernel}.npy"] + b"x"), "claims to be"),
        "another version": (with_kernel(npy_of_version_2(arrays[kernel])), "version (2, 0)"),
        "twice": (archive_of([*good.items(), (f"{kernel}.npy", good[f"{kernel}.npy"])]), "one name"),
        "no array": (archive_of([*good.items(), ("readme.txt", b"hello")]), "no name of an array"),
        **{
            f"a path {name}": (archive_of([*good.items(), (name, npy(np.zeros(3)))]), "no name of an array")
            for name in ("../../evil.npy", "/etc/evil.npy", "actor/../evil.npy", "a\\..\\b.npy", "./x.npy", "a//b.npy")
        },
    }


def npy_of_version_2(array):
    made = io.BytesIO()
    np.lib.format.write_array(made, array, version=(2, 0))
    return made.getvalue()


def test_an_archive_that_claims_more_than_it_is_is_refused_before_an_array_is_made(copy, monkeypatch):
    path, home = policy_path(copy, 1), {file.name for file in copy.parent.iterdir()}
    with np.load(path) as file:
        arrays = dict(file)
    kernel = next(name for name in arrays if name.endswith("kernel"))
    read, made = np.lib.format.read_array, []

    def counted(*args, **kwargs):
        made.append(read(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(np.lib.format, "read_array", counted)
    for name, (data, words) in hostile(arrays, kernel).items():
        path.write_bytes(data)
        message = str(outcome(copy))
        assert message.startswith(f"cannot load a policy from {path}: "), name
        assert words in message, name
        assert [array.nbytes for array in made] in ([], [8]), name  # no more than the size of observations
        made.clear()
    assert {file.name for file in copy.parent.iterdir()} == home
    path.write_bytes(archive_of(members(arrays).items()))
    assert isinstance(outcome(copy), Policy)


def test_an_encrypted_archive_is_refused(copy):
    path = policy_path(copy, 1)
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1  # the flag in the list of contents
    path.write_bytes(data)
    assert "compressed or encrypted" in str(outcome(copy))


def test_only_regular_files_are_opened_and_none_is_waited_for(copy):
    path = policy_path(copy, 1)
    good = path.with_name("good.npz")
    path.rename(good)
    for make, words in (
        (os.mkfifo, "is not a regular file"),
        (Path.mkdir, "Is a directory"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
        (lambda path: path.symlink_to("nowhere"), "No such file"),
    ):
        make(path)
        assert words in str(outcome(copy))
        path.rmdir() if path.is_dir() else path.unlink()
    path.symlink_to(good)
    assert isinstance(outcome(copy), Policy)


def test_a_flipped_bit_is_found_or_does_no_harm(copy):
    path = policy_path(copy, 1)
    good, actor = path.read_bytes(), load_policy(copy, 1).actor
    found = 0
    for position in range(0, len(good), len(good) // 60):
        path.write_bytes(good[:position] + bytes([good[position] ^ 4]) + good[position + 1 :])
        loaded = outcome(copy)
        if isinstance(loaded, str):
            found += 1
            assert loaded.startswith(f"cannot load a policy from {path}: ")
        else:
            tiny_runs.assert_same_bits(loaded.actor, actor)  # dates, permissions and the like
    assert found > 20
