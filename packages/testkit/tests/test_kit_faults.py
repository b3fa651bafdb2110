"""The faults of the kit: the proxy by itself, and the rules on a correct backend on a network."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agent_memory import InvalidArgumentError
from agent_memory_testkit import ConformanceFailure, ConformanceSuite, Network, Profile
from agent_memory_testkit.faults import FaultProxy, NetworkFault
from kill_score import names_of
from network_mutants import NetworkTrial
from network_reference import NetworkDatabase

ANSWER = b"0123456789"


@pytest.mark.parametrize("rule", ["ERR-1", "ERR-2", "ERR-3", "ERR-4", "ERR-5"])
def test_a_correct_backend_on_a_network_passes(rule: str) -> None:
    NetworkTrial.setup_class()
    try:
        for name in names_of(rule):
            getattr(NetworkTrial(), name)()
    finally:
        NetworkTrial.teardown_class()


# --- the seam ------------------------------------------------------------------------------------


def test_a_network_needs_a_way_through_the_proxy() -> None:
    class Without(ConformanceSuite):
        profile = Profile("x", network=Network("localhost", 6379, timeout=1))

    with pytest.raises(InvalidArgumentError, match="needs: async def open_through"):
        Without.setup_class()


def test_a_way_that_does_not_lead_through_the_proxy_is_noticed() -> None:
    class Around(NetworkTrial):
        async def open_through(
            self, space: str, embeddings: Any, host: str, port: int
        ) -> NetworkDatabase:
            direct = await self.open(space, embeddings)
            assert isinstance(direct, NetworkDatabase)
            return direct

    Around.setup_class()
    try:
        with pytest.raises(ConformanceFailure, match="no connection came to this host and port"):
            Around().test_err_1_no_answer_is_an_error_in_time()
    finally:
        Around.teardown_class()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"port": 0, "timeout": 1}, "port=0"),
        ({"port": 6379, "timeout": 0}, "timeout=0"),
        ({"port": 6379, "timeout": 61}, "timeout=61"),
    ],
)
def test_a_wrong_network_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Network("localhost", **arguments)


# --- the proxy -----------------------------------------------------------------------------------


@contextmanager
def answering_engine() -> Iterator[int]:
    """Give the port of a server that answers each chunk of a request with ``ANSWER``."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                while connection.recv(100):
                    connection.sendall(ANSWER)
            except OSError:
                return  # the proxy was reset

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(listening.getsockname()[1])
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with (
        answering_engine() as port,
        FaultProxy("127.0.0.1", port, delay=0.3) as proxy,
    ):
        yield proxy


def connected(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection((proxy.host, proxy.port), timeout=0.2)


def heard_on_a_new_connection(proxy: FaultProxy) -> bytes:
    with connected(proxy) as connection:
        return connection.recv(1)


def asked(connection: socket.socket) -> bytes:
    """Send a request and return all that comes back until the answer is whole or the end."""
    connection.sendall(b"?")
    got = b""
    while len(got) < len(ANSWER):
        part = connection.recv(100)
        if not part:
            break
        got += part
    return got


def test_the_proxy_passes_everything_on(proxy: FaultProxy) -> None:
    with connected(proxy) as connection:
        assert [asked(connection), asked(connection)] == [ANSWER, ANSWER]
    assert (proxy.connections, proxy.hits) == (1, 0)


def test_connections_are_refused(proxy: FaultProxy) -> None:
    with connected(proxy) as connection:
        assert asked(connection) == ANSWER
        proxy.inject(NetworkFault.REFUSE)
        with pytest.raises(ConnectionError):
            asked(connection)
    with pytest.raises(ConnectionRefusedError):
        connected(proxy)
    proxy.lift()
    with connected(proxy) as connection:
        assert asked(connection) == ANSWER


def test_connections_are_reset(proxy: FaultProxy) -> None:
    with connected(proxy) as connection:
        assert asked(connection) == ANSWER
        proxy.inject(NetworkFault.RESET)
        with pytest.raises(ConnectionError):
            asked(connection)
    with pytest.raises(ConnectionError):
        heard_on_a_new_connection(proxy)


def test_nothing_gets_through_a_stalled_connection(proxy: FaultProxy) -> None:
    with connected(proxy) as connection:
        proxy.inject(NetworkFault.STALL)
        with pytest.raises(TimeoutError):
            asked(connection)
        assert proxy.hits == 1
        proxy.lift()
        with pytest.raises(ConnectionError):
            asked(connection)


def test_answers_are_late(proxy: FaultProxy) -> None:
    with connected(proxy) as connection:
        proxy.inject(NetworkFault.DELAY)
        connection.settimeout(2)
        started = time.monotonic()
        assert asked(connection) == ANSWER
        assert time.monotonic() - started >= 0.3


def test_answers_are_cut_in_half(proxy: FaultProxy) -> None:
    with connected(proxy) as connection:
        proxy.inject(NetworkFault.CUT, after=1)
        assert asked(connection) == ANSWER
        assert asked(connection) == ANSWER[:5]


def test_one_answer_is_lost(proxy: FaultProxy) -> None:
    proxy.inject(NetworkFault.LOSE, times=1)
    with connected(proxy) as connection, pytest.raises(ConnectionError):
        asked(connection)
    with connected(proxy) as connection:
        assert asked(connection) == ANSWER
    assert proxy.hits == 1
