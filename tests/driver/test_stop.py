import signal

import pytest

from mbpo_jax.driver.stop import StopRequest


def test_a_terminal_that_closes_asks_for_a_stop_however_often_it_says_so(hangs_up):
    with StopRequest() as stop:
        assert not stop.requested
        for _ in range(3):
            signal.raise_signal(signal.SIGHUP)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            stop.raise_if_stopped()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_under_nohup_the_end_of_a_terminal_is_none_of_its_business(hangs_up):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert not stop.requested
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
