import pytest

from mbpo_jax.reports import scores


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
    with pytest.raises(ValueError, match="expert_return must be above random_return=2.0, got inf"):
        scores.measured("Ant-v5", 2.0, float("inf"))


def test_references_are_read_from_text():
    assert scores.parse("Ant-v5=-3,1e3") == ("Ant-v5", scores.measured("Ant-v5", -3.0, 1000.0))
    assert scores.parse("mine:Hopper-v2=d4rl") == ("mine:Hopper-v2", scores.d4rl("Hopper-v2"))


@pytest.mark.parametrize("text", ["", "Ant-v5", "Ant-v5=", "Ant-v5=1", "Ant-v5=1,2,3", "Ant-v5=a,b", "=1,2", "=d4rl"])
def test_text_that_names_no_reference_is_refused(text):
    with pytest.raises(ValueError, match=r"must be ENV=RANDOM,EXPERT, two returns, or ENV=d4rl, got"):
        scores.parse(text)
