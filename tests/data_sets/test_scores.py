import pytest

from mbpo_jax.data_sets import scores


@pytest.mark.parametrize(
    ("env_id", "random", "expert"),
    [
        ("HalfCheetah-v5", -280.178953, 12135.0),
        ("hopper:Hopper-v2", -20.272305, 3234.3),
        ("Walker2d-v4", 1.629008, 4592.3),
    ],
)
def test_d4rls_reference(env_id, random, expert):
    reference = scores.d4rl(env_id)
    assert reference == ("D4RL", random, expert)
    assert scores.normalised(random, reference) == 0.0
    assert scores.normalised(expert, reference) == 100.0
    assert scores.normalised((random + expert) / 2, reference) == pytest.approx(50.0)


def test_a_measured_reference_has_its_environments_name():
    reference = scores.measured("Hopper-v5", 20.0, 3020.0)
    assert reference.name == "measured on Hopper-v5"
    assert scores.normalised(320.0, reference) == 10.0


def test_wrong_references_are_refused():
    with pytest.raises(ValueError, match="env must be one of HalfCheetah, Hopper, Walker2d for D4RL's .*'Ant-v5'"):
        scores.d4rl("Ant-v5")
    with pytest.raises(ValueError, match="expert_return must be above random_return=2.0, got 1.0"):
        scores.measured("Ant-v5", 2.0, 1.0)
