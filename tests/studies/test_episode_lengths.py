import numpy as np

from mbpo_jax.studies import episode_lengths


def test_an_episode_ends_where_the_next_begins():
    first = np.zeros(12, bool)
    first[[0, 3, 4, 9]] = True  # the last one is still running
    assert episode_lengths.whole_episodes(first).tolist() == [3, 1, 5]


def test_the_sentence_says_when_episodes_became_short():
    runs = [
        {"name": "n=0", "seeds": 2, "mean_steps": [30.0, 25.0], "standard_errors": [1, 2], "greedy_steps": []},
        {"name": "n=5", "seeds": 2, "mean_steps": [30.0, 19.5], "standard_errors": [1, 0.5], "greedy_steps": [14, 16]},
    ]  # fmt: skip
    finding = episode_lengths.present({"env": "Maze-v0", "short_steps": 20, "runs": runs})
    assert finding.sentence == (
        "Maze-v0, mean steps of an episode: n=0 (2 seeds) 30 in 1, 25 in 2, never fewer than 20; "
        "n=5 (2 seeds) 30 in 1, 19.5 in 2, fewer than 20 first in episode 2, 14 to 16 without exploration in the end."
    )
    assert [line.get_ydata().tolist() for line in finding.figure.axes[0].lines] == [[30.0, 25.0], [30.0, 19.5]]


def test_the_standard_error_is_that_of_a_sample_and_not_known_from_one_seed():
    errors = episode_lengths.standard_errors(np.array([[10, 5], [14, 5]]))
    assert errors == [2.0, 0.0]  # 10 and 14: a variance of (4 + 4) / 1, over 2 seeds
    assert episode_lengths.standard_errors(np.array([[10, 5]])) is None


def test_one_seed_is_drawn_without_a_band():
    run = {"name": "n=0", "seeds": 1, "mean_steps": [30.0, 25.0], "standard_errors": None, "greedy_steps": []}
    (axes,) = episode_lengths.present({"env": "Maze-v0", "short_steps": 20, "runs": [run]}).figure.axes
    assert len(axes.lines) == 1
    assert not axes.collections
