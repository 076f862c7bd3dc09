"""What flags set, by name, and the message of those that are refused."""

import dataclasses

import pytest

from mbpo_jax.launch import flags
from mbpo_jax.launch.flags import FlagsError


def flat(config):
    """All knobs of a config and its sections, by name."""
    values = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        values |= flat(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return values


def refusal(*argv):
    """The message of a command line that must be refused, which is one line."""
    with pytest.raises(FlagsError) as caught:
        flags.parse(list(argv))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message
