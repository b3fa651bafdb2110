"""The tool that gives each test run a real Redis of its own, and leaves none behind."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis_server
from redis_server import NoRedisError, RedisServer

TOOL = Path(redis_server.__file__)


def alive(pid: int) -> bool:
    """Whether the process runs; one that is dead and not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    for _ in range(500):
        if not alive(pid):
            return True
        time.sleep(0.01)
    return False


def test_a_server_answers_and_is_gone_afterwards() -> None:
    with RedisServer() as server:
        pid, data = server.pid, server.data
        assert server.run("PING") == "PONG"
        assert int(server.run("INFO", "server").partition("redis_version:")[2][0]) >= 8
        assert "search" in server.run("MODULE", "LIST")
    assert gone(pid)
    assert not data.exists()


def test_two_servers_are_apart() -> None:
    with RedisServer() as one, RedisServer() as other:
        one.run("SET", "key", "one")
        assert one.port != other.port
        assert other.run("EXISTS", "key") == "0"


def test_without_the_query_engine() -> None:
    with RedisServer(query_engine=False) as server, pytest.raises(RuntimeError, match="unknown"):
        server.run("FT._LIST")


def test_what_is_on_disk_survives_kill() -> None:
    with RedisServer(appendonly=True) as server:
        server.run("SET", "key", "kept")
        server.kill()
        with pytest.raises(OSError, match="refused"):
            server.run("PING")
        server.restart()
        assert server.run("GET", "key") == "kept"


def test_without_append_only_nothing_survives() -> None:
    with RedisServer() as server:
        server.run("SET", "key", "lost")
        server.kill()
        server.restart()
        assert server.run("EXISTS", "key") == "0"


def test_paused_it_is_silent_and_resumed_it_goes_on() -> None:
    with RedisServer() as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        server.pause()
        client.settimeout(0.2)
        client.sendall(b"PING\r\n")
        with pytest.raises(TimeoutError):
            client.recv(10)
        server.resume()
        client.settimeout(5)
        assert client.recv(10) == b"+PONG\r\n"


def test_a_replica_follows_and_can_be_promoted() -> None:
    with RedisServer() as primary, RedisServer(replica_of=primary) as replica:
        primary.run("SET", "key", "value")
        assert primary.run("WAIT", "1", "5000") == "1"
        assert replica.run("GET", "key") == "value"
        replica.run("REPLICAOF", "NO", "ONE")
        assert replica.run("SET", "key", "mine") == "OK"


def test_a_given_data_folder_is_kept(tmp_path: Path) -> None:
    with RedisServer(data=tmp_path, appendonly=True) as server:
        server.run("SET", "key", "kept")
    with RedisServer(data=tmp_path, appendonly=True) as again:
        assert again.run("GET", "key") == "kept"


def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(NoRedisError, match="nonsense"):
        RedisServer(settings={"nonsense": "1"})


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_it_dies_with_its_owner(death: signal.Signals) -> None:
    script = (
        f"import sys, time; sys.path.insert(0, {str(TOOL.parent)!r})\n"
        "from redis_server import RedisServer\n"
        "server = RedisServer()\n"
        "print(server.pid, server.data, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid, data = owner.stdout.readline().decode().split()
        assert alive(int(pid))
        owner.send_signal(death)
    assert gone(int(pid))
    for _ in range(500):
        if not Path(data).exists():
            return
        time.sleep(0.01)
    raise AssertionError(list(Path(data).iterdir()))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_the_command_runs_one_until_it_is_interrupted(how: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, str(TOOL)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None
        name, _, url = command.stdout.readline().strip().partition("=")
        assert name == "REDIS_URL"
        port = int(url.rpartition(":")[2].partition("/")[0])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"PING\r\n")
            assert client.recv(10) == b"+PONG\r\n"
        command.send_signal(how)
        assert command.wait(20) == 0
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port))


def test_without_any_way_to_get_one_it_says_how(tmp_path: Path) -> None:
    # A PATH that holds nothing, and an empty cache.
    script = f"import sys; sys.path.insert(0, {str(TOOL.parent)!r}); import redis_server; " + (
        "redis_server.program()"
    )
    done = subprocess.run(
        [
            "/usr/bin/env",
            "-i",
            f"HOME={tmp_path}",
            f"PATH={tmp_path}",
            sys.executable,
            "-c",
            script,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "AGENT_MEMORY_TEST_REDIS_URL" in done.stderr
    assert "redis:8" in done.stderr
    assert not list(tmp_path.rglob("redis-server"))
