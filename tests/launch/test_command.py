import pytest

from mbpo_jax.driver.config import Broken, Diverged, NotFinite, StorageFailure
from mbpo_jax.driver.stop import EXIT_STOPPED
from mbpo_jax.launch.command import exit_status, report_error


def test_a_command_that_is_interrupted_says_so_in_a_line(capsys):
    def interrupted():
        raise KeyboardInterrupt

    assert exit_status(interrupted) == EXIT_STOPPED == 3
    assert capsys.readouterr() == ("", "mbpo_jax: stopped\n")
    assert exit_status(lambda: 7) == 7


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError, 2),
        (UnicodeError, 2),
        (Diverged, 4),
        (Broken, 5),
        (NotFinite, 5),
        (StorageFailure, 6),
        (OSError, 6),
    ],
)
def test_every_error_has_its_status_and_is_one_line(capsys, error, status):
    assert report_error(error("the first line\n  the second")) == status
    assert capsys.readouterr() == ("", "mbpo_jax: error: the first line the second\n")


def test_an_environments_own_traceback_comes_before_the_line(capsys):
    error = Broken("it broke")
    error.environment_traceback = "Traceback:\n  its own\n"
    assert report_error(error) == 5
    assert capsys.readouterr().err == "Traceback:\n  its own\nmbpo_jax: error: it broke\n"
