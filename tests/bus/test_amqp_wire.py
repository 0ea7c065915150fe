"""Whatever ails RabbitMQ, its users are told by one exception; what is their own fault stays what it is."""

import aiormq
import pytest

from bus.amqp_wire import translated


@pytest.mark.parametrize("ailment", [aiormq.AMQPError("x"), OSError("x"), TimeoutError(), Exception()])
def test_what_ails_the_broker_is_a_connection_error(ailment: Exception):
    with pytest.raises(ConnectionError, match="reporting"), translated("reporting"):
        raise ailment


def test_what_is_wrong_otherwise_is_not():
    with pytest.raises(KeyError), translated("reporting"):
        raise KeyError("x")
