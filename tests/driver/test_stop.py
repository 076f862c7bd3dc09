import signal

import pytest

from mbpo_jax.driver.stop import EXIT_STOPPED, StopRequest, exit_status


def test_a_terminal_that_closes_asks_for_a_stop_however_often_it_says_so(hangs_up):
    with StopRequest() as stop:
        assert not stop.requested
        for _ in range(3):
            signal.raise_signal(signal.SIGHUP)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            stop.heed()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_under_nohup_the_end_of_a_terminal_is_none_of_its_business(hangs_up):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert not stop.requested
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_command_that_is_interrupted_says_so_in_a_line(capsys):
    def interrupted():
        raise KeyboardInterrupt

    assert exit_status(interrupted) == EXIT_STOPPED == 3
    assert capsys.readouterr() == ("", "mbpo_jax: stopped\n")
    assert exit_status(lambda: 7) == 7
