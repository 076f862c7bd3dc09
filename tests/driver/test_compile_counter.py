import jax
import jax.numpy as jnp
from jax import monitoring

from mbpo_jax.driver.compile_counter import EVENT, CompileCounter


def test_counts_one_for_a_new_function_and_none_for_the_second_call():
    x, longer = jnp.arange(7.0), jnp.arange(8.0)  # built first: making arrays compiles too
    f = jax.jit(lambda x: jnp.sin(x) * 3.25 + 1.5)
    counter = CompileCounter()
    f(x).block_until_ready()
    assert counter.count == 1
    seconds = counter.seconds
    assert seconds > 0.0
    f(x).block_until_ready()
    assert (counter.count, counter.seconds) == (1, seconds)
    f(longer).block_until_ready()  # another shape is another program
    assert counter.count == 2
    assert counter.seconds > seconds


def test_each_counter_starts_at_its_own_construction():
    first = CompileCounter()
    monitoring.record_event_duration_secs(EVENT, 2.0)
    second = CompileCounter()
    monitoring.record_event_duration_secs(EVENT, 0.5)
    assert (first.count, second.count) == (2, 1)
    assert first.seconds - second.seconds == 2.0


def test_many_counters_share_one_listener_and_other_events_do_not_count():
    counters = [CompileCounter() for _ in range(5)]
    monitoring.record_event_duration_secs(EVENT, 1.0)
    monitoring.record_event_duration_secs("/jax/core/compile/jaxpr_trace_duration", 1.0)
    assert [counter.count for counter in counters] == [1] * 5
