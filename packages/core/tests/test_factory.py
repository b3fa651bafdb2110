"""The factory: each way in which finding a backend goes wrong, by the words that the user reads."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agent_memory
from agent_memory import (
    BackendAttributeError,
    BackendCompatibilityError,
    BackendConflictError,
    BackendDependencyError,
    BackendError,
    BackendImportError,
    BackendNotFoundError,
    BackendTypeError,
    Embeddings,
    InvalidArgumentError,
    LiteLLMEmbeddings,
    LocalEmbeddings,
    MemoryVectorDatabase,
    create_memory_vector_db,
)
from agent_memory.discovery import KNOWN_BACKENDS, clear_cache
from agent_memory.factory import choose_backend, import_factory, resolve_embeddings

if TYPE_CHECKING:
    from factory_site import Site

ABSTRACT = (
    "add_memories",
    "search_memories",
    "delete_memories",
    "update_memories",
    "count_memories",
    "list_memories",
)


class SomeEmbeddings:
    """Embeddings that are never asked for anything."""

    model = "some"

    @property
    def dimensions(self) -> int:
        raise AssertionError("creating a database must not ask for the dimensions")

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        raise AssertionError(texts)

    async def aembed_query(self, text: str) -> list[float]:
        raise AssertionError(text)


EMBEDDINGS = SomeEmbeddings()


def create(factory: Any = None, **options: Any) -> MemoryVectorDatabase:
    return create_memory_vector_db(factory, embeddings=EMBEDDINGS, **options)


def message(error: type[BaseException], factory: Any = None, **options: Any) -> str:
    """Return what the user reads when creating a backend fails with exactly this error."""
    with pytest.raises(error) as caught:
        create(factory, **options)
    assert type(caught.value) is error
    return str(caught.value)


# --- what works ----------------------------------------------------------------------------------


def test_creates_a_backend_that_pip_installed(site: Site) -> None:
    site.pip_install(
        "acme-memory",
        backends={"acme": "acme_memory:create"},
        modules={"acme_memory": site.database},
    )
    database: Any = create("acme", space="notes")
    assert type(database).__module__ == "acme_memory"
    assert database.embeddings is EMBEDDINGS
    assert database.options == {"space": "notes"}


@pytest.mark.parametrize(
    "path",
    [
        "package.module.create",
        "package.module:create",
        "package.module.MyDB",
        "package.module.MyDB.create",
        "package.module:MyDB.create",
        "package.module.create_plainly",
    ],
)
def test_creates_by_path(site: Site, path: str) -> None:
    site.module("package.module")
    assert type(create(path)).__name__ == "MyDB"


def test_creates_by_callable(site: Site) -> None:
    site.module("acme")
    import acme  # type: ignore[import-not-found]

    for factory in (acme.create, acme.MyDB, acme.MyDB.create):
        assert type(create(factory)).__name__ == "MyDB"


def test_a_function_of_the_name_of_its_module_is_found(site: Site) -> None:
    site.module("package.create")
    site.module("package.__init__", "from package.create import create\n")
    assert type(create("package.create")).__name__ == "MyDB"


def test_a_path_into_the_running_script_is_found(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = ModuleType("__main__")  # which has no __spec__
    exec(site.database, script.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", script)
    assert type(create("__main__.create")).__name__ == "MyDB"


def test_an_attribute_that_a_package_makes_on_demand_is_found(site: Site) -> None:
    site.module("package.module")
    site.module(
        "package.__init__",
        """
        def __getattr__(name):
            if name == "create":
                from package.module import create
                return create
            raise AttributeError(name)
        """,
    )
    assert type(create("package.create")).__name__ == "MyDB"


# --- where the setting comes from ----------------------------------------------------------------


def test_the_argument_wins_over_the_environment(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.module("acme")
    monkeypatch.setenv("MEMORY_VECTOR_DB_FACTORY", "nowhere.create")
    assert type(create("acme.create")).__name__ == "MyDB"


def test_the_environment_names_the_backend(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.module("acme")
    monkeypatch.setenv("MEMORY_VECTOR_DB_FACTORY", " acme.create\r")
    assert type(create()).__name__ == "MyDB"


@pytest.mark.parametrize("value", [None, "", "  "])
def test_the_default_is_redis(
    site: Site, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv("MEMORY_VECTOR_DB_FACTORY", value)
    site.module("fast")
    site.distribution("fast-memory", backends={"redis": "fast:create"})
    assert type(create()).__module__ == "fast"


def test_every_message_names_the_source_of_the_setting(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "(from the argument factory)" in message(BackendNotFoundError, "nosuch")
    assert "'redis' (from the default, as MEMORY_VECTOR_DB_FACTORY is not set)" in message(
        BackendNotFoundError
    )
    source = "(from the environment variable MEMORY_VECTOR_DB_FACTORY)"
    site.module("acme", "create = 1\ndef fail(embeddings): return None\nraising = {}.pop\n")
    site.module("fragile", "1 / 0")
    site.module("needy", "import nosuch_dependency")
    for setting, error in {
        "nosuch": BackendNotFoundError,
        "nosuch.create": BackendImportError,
        "fragile.create": BackendImportError,
        "needy.create": BackendDependencyError,
        "acme.nosuch": BackendAttributeError,
        "acme.create": BackendTypeError,
        "acme.fail": BackendTypeError,
    }.items():
        monkeypatch.setenv("MEMORY_VECTOR_DB_FACTORY", setting)
        assert f"{setting!r} {source}" in message(error)


def test_a_file_in_the_working_directory_names_nothing(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.module("acme")
    (tmp_path / ".env").write_text("MEMORY_VECTOR_DB_FACTORY=acme.create\n")
    monkeypatch.chdir(tmp_path)
    assert "'redis'" in message(BackendNotFoundError)


# --- no such name --------------------------------------------------------------------------------


def test_unknown_name(site: Site) -> None:
    site.distribution("acme-memory", "2.3", backends={"acme": "acme:create"})
    site.distribution("vec-memory", "0.4", backends={"vec": "vec:create"})
    text = message(BackendNotFoundError, "vecs")
    assert "no installed distribution registers the backend 'vecs'" in text
    assert "Did you mean 'vec'? Installed" in text
    assert "Installed: 'acme' (acme-memory 2.3) and 'vec' (vec-memory 0.4)" in text
    assert "import path: 'package.module.attribute'" in text


@pytest.mark.parametrize("name", ["reddis", "Redis", "agent-memory-redis", "agent_memory_redis"])
def test_misspelt_known_name_that_is_not_installed(site: Site, name: str) -> None:
    text = message(BackendNotFoundError, name)
    assert "Did you mean 'redis'? It is not installed: pip install agent-memory-redis" in text


@pytest.mark.parametrize("name", ["ACME", "acmee", "acme-vectors", "acme_vectors"])
def test_misspelt_installed_name(site: Site, name: str) -> None:
    site.distribution("acme-vectors", backends={"acme": "acme:create"})
    text = message(BackendNotFoundError, name)
    assert "Did you mean 'acme'?" in text
    assert "pip install" not in text


def test_a_name_like_no_other_gets_no_guess(site: Site) -> None:
    site.distribution("acme-memory", backends={"acme": "acme:create"})
    assert "Did you mean" not in message(BackendNotFoundError, "postgres")


@pytest.mark.parametrize(("name", "distribution"), KNOWN_BACKENDS.items())
def test_known_name_that_is_not_installed(site: Site, name: str, distribution: str) -> None:
    text = message(BackendNotFoundError, name)
    assert f"backend {name!r} (from the argument factory) is not installed" in text
    assert f"pip install {distribution}" in text
    assert "Installed: no backend at all" in text
    site.distribution("acme-memory", "2.3", backends={"acme": "acme:create"})
    text = message(BackendNotFoundError, name)
    assert "Installed: 'acme' (acme-memory 2.3)" in text


def test_a_distribution_that_cannot_be_read_is_named(site: Site) -> None:
    folder = site.distribution("vec-memory", backends={"vec": "vec:create"})
    (folder / "entry_points.txt").write_bytes(b"[agent_memory.backends]\nvec = \xff\n")
    text = message(BackendNotFoundError, "vec")
    assert f"The metadata in {folder} could not be read (UnicodeDecodeError" in text


def test_what_was_installed_since_is_found(site: Site) -> None:
    message(BackendNotFoundError, "acme")
    site.module("acme_memory")
    folder = site.folder / "acme_memory-1.0.dist-info"  # as another process would write it
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-memory\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[agent_memory.backends]\nacme = acme_memory:create\n")
    assert type(create("acme")).__name__ == "MyDB"


def test_never_falls_back_to_another_backend(site: Site) -> None:
    site.module("acme")
    site.distribution("acme-memory", backends={"acme": "acme:create"})
    for setting in (None, "redis", "inmemory", "acm", "", "nosuch.create"):
        with pytest.raises(BackendError):
            create(setting)


def test_a_failure_inside_a_plugin_is_not_reported_as_not_installed(site: Site) -> None:
    site.module("acme", "{}['nosuch']")
    site.distribution("acme-memory", backends={"acme": "acme:create"})
    assert "KeyError" in message(BackendImportError, "acme")


# --- the path's own module does not exist --------------------------------------------------------


def test_module_that_does_not_exist(site: Site) -> None:
    text = message(BackendImportError, "nosuch.module.create")
    assert "there is no module 'nosuch' on sys.path" in text
    assert "Console scripts do not add the current directory to sys.path" in text
    assert "PYTHONPATH" in text
    assert "pip install" not in text


@pytest.mark.parametrize("path", ["package.nosuch.create", "package.nosuch:create"])
def test_part_of_the_path_that_does_not_exist(site: Site, path: str) -> None:
    file = site.module("package.__init__", "")
    text = message(BackendImportError, path)
    assert f"the package 'package' ({file})" in text or f"the module 'package' ({file})" in text
    assert "'nosuch'" in text
    assert "Console scripts do not add the current directory to sys.path" in text


def test_misspelt_part_of_the_path(site: Site) -> None:
    site.module("package.backends")
    text = message(BackendImportError, "package.backend.create")
    assert "has neither a module nor an attribute 'backend'" in text
    assert "Did you mean 'backends'?" in text


def test_a_module_is_not_a_package(site: Site) -> None:
    file = site.module("acme")
    text = message(BackendImportError, "acme.inner:create")
    assert f"'acme' ({file}) is a module and not a package" in text


def test_part_of_a_package_without_init(site: Site) -> None:
    (site.folder / "spread").mkdir()
    text = message(BackendImportError, "spread.nosuch.create")
    assert str(site.folder / "spread") in text
    assert "'nosuch'" in text


@pytest.mark.parametrize(
    "path", [".create", "acme.", "acme:", ":create", "a..b", "a:b:c", "my-acme.create", "a b.c"]
)
def test_path_that_is_none(site: Site, path: str) -> None:
    text = message(BackendImportError, path)
    assert "is not a Python name" in text
    assert "expected 'package.module.attribute' or 'package.module:attribute'" in text


@given(st.text(alphabet="ab.: -é\0\n/@", max_size=12))
def test_any_string_is_created_or_refused_in_our_terms(setting: str) -> None:
    with pytest.raises(BackendError):
        create(setting)


def test_a_url_is_no_path_and_its_password_is_not_printed(site: Site) -> None:
    text = message(BackendImportError, "redis://ada:s3cret@example.org:6379/0")
    assert "s3cret" not in text
    assert "redis://***@example.org" in text


def test_console_script_started_next_to_the_module(site: Site, tmp_path: Path) -> None:
    script = tmp_path / "bin" / "tool"
    script.parent.mkdir()
    script.write_text(
        "import agent_memory\n"
        "try:\n"
        "    print(agent_memory.create_memory_vector_db(embeddings='local'))\n"
        "except agent_memory.BackendError as error:\n"
        "    print(error)\n"
    )
    site.module("my_backends")
    environment = {**os.environ, "MEMORY_VECTOR_DB_FACTORY": "my_backends.create"}
    environment.pop("PYTHONPATH", None)

    def output() -> str:
        return subprocess.run(
            [sys.executable, str(script)],
            cwd=site.folder,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    text = output()
    assert "there is no module 'my_backends' on sys.path" in text
    assert "Console scripts do not add the current directory to sys.path" in text
    environment["PYTHONPATH"] = str(site.folder)  # as the message says
    assert "MyDB object" in output()


def test_registered_module_that_is_gone(site: Site) -> None:
    site.distribution("acme-memory", "2.3", backends={"acme": "acme_memory:create"})
    text = message(BackendImportError, "acme")
    assert "acme-memory 2.3, acme_memory:create" in text
    assert "there is no module 'acme_memory'" in text
    assert "The installation of acme-memory 2.3 looks incomplete" in text
    assert "pip install --force-reinstall acme-memory" in text


def test_registered_target_that_is_no_path(site: Site) -> None:
    site.distribution("acme-memory", "2.3", backends={"acme": "not a path!"})
    text = message(BackendImportError, "acme")
    assert "acme-memory 2.3" in text
    assert "is not a Python name" in text


# --- a module that it imports does not exist -----------------------------------------------------


def test_missing_dependency_of_a_module(site: Site) -> None:
    file = site.module("acme", "import nosuch_engine.client\n")
    with pytest.raises(BackendDependencyError) as caught:
        create("acme.create")
    text = str(caught.value)
    assert f"{file} exists, but a module that it imports does not: 'nosuch_engine'" in text
    assert f"{file}, line 1" in text
    assert "Install the distribution that provides it" in text
    assert "pip install" not in text  # whose name nobody knows
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert caught.value.name == "nosuch_engine"


def test_missing_dependency_further_down(site: Site) -> None:
    inner = site.module("package.inner", "\nimport nosuch_engine\n")
    file = site.module("package.module", "import package.inner\n")
    text = message(BackendDependencyError, "package.module.create")
    assert f"{file} exists" in text
    assert f"{inner}, line 2" in text


def test_missing_dependency_of_the_package_around_the_module(site: Site) -> None:
    site.module("package.module")
    file = site.module("package.__init__", "import nosuch_engine\n")
    assert f"{file} exists" in message(BackendDependencyError, "package.module.create")
    assert f"{file} exists" in message(BackendDependencyError, "package.module:create")


def test_missing_module_that_looks_like_a_part_of_the_path(site: Site) -> None:
    # Its name starts as the path does, and still it is not the path that is wrong.
    file = site.module("package.module", "import package.module_engine\n")
    text = message(BackendDependencyError, "package.module.create")
    assert f"{file} exists" in text
    assert "'package.module_engine'" in text


def test_missing_module_of_the_name_of_the_attribute(site: Site) -> None:
    site.module("acme", "import create\n")
    assert "'create'" in message(BackendDependencyError, "acme.create")


def test_missing_dependency_that_is_not_named(site: Site) -> None:
    site.module("acme", "raise ModuleNotFoundError('please install the engine')\n")
    text = message(BackendDependencyError, "acme.create")
    assert "it does not say which (please install the engine" in text


@pytest.mark.parametrize("path", ["acme.create", "acme.MyDB.create"])
def test_missing_dependency_of_an_attribute_made_on_demand(site: Site, path: str) -> None:
    site.module("acme", "def __getattr__(name):\n    import nosuch_engine\n")
    assert "'nosuch_engine'" in message(BackendDependencyError, path)


def test_missing_dependency_of_a_registered_backend(site: Site) -> None:
    file = site.module("acme", "import nosuch_engine\n")
    site.distribution("acme-memory", "2.3", backends={"acme": "acme:create"})
    for setting in ("acme", "acme:create", "acme.create"):  # by path it is the same backend
        text = message(BackendDependencyError, setting)
        assert "acme-memory 2.3, acme:create" in text
        assert f"{file} exists" in text
        assert "'nosuch_engine'" in text
        assert "'pip check' tells what it lacks" in text
        assert "pip install --force-reinstall acme-memory" in text


@pytest.fixture
def _without_server_compat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the package that this workspace installs, as on a machine that has only the core."""

    class Without:
        def __init__(self, finder: Any) -> None:
            self.finder = finder

        def __getattr__(self, name: str) -> Any:
            return getattr(self.finder, name)

        def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
            if name.partition(".")[0] == "agent_memory_server":
                return None
            return self.finder.find_spec(name, path, target)

    for name in [each for each in sys.modules if each.partition(".")[0] == "agent_memory_server"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [*map(Without, sys.meta_path)])


@pytest.mark.usefixtures("_without_server_compat")
@pytest.mark.parametrize("registered", [False, True])
def test_missing_agent_memory_server(site: Site, registered: bool) -> None:
    site.module(
        "seed_backend", "from agent_memory_server.memory_vector_db import MemoryVectorDatabase\n"
    )
    if registered:
        site.distribution("seed-memory", backends={"seed": "seed_backend:create"})
    text = message(BackendDependencyError, "seed" if registered else "seed_backend.create")
    assert "'agent_memory_server'" in text
    assert "pip install agent-memory-server-compat" in text


@pytest.mark.usefixtures("_without_server_compat")
def test_path_into_the_missing_agent_memory_server(site: Site) -> None:
    text = message(
        BackendImportError,
        "agent_memory_server.memory_vector_db_factory.create_redis_memory_vector_db",
    )
    assert "there is no module 'agent_memory_server'" in text
    assert "pip install agent-memory-server-compat" in text


def test_missing_part_of_agent_memory_server(site: Site) -> None:
    site.module("agent_memory_server.__init__", "")
    site.module("seed_backend", "import agent_memory_server.nosuch\n")
    text = message(BackendDependencyError, "seed_backend.create")
    assert "'agent_memory_server.nosuch'" in text
    assert "agent-memory-server-compat" not in text  # it is installed


# --- the module raised something else ------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        ("\nraise RuntimeError('no licence')", RuntimeError, "no licence"),
        ("\nfrom agent_memory import nosuch", ImportError, "cannot import name 'nosuch'"),
        ("\nimport os.path.nosuch.x", ModuleNotFoundError, "not a package"),
        ("\n1 / 0", ZeroDivisionError, "division by zero"),
        ("def (", SyntaxError, "line 1"),
        ("\nimport sys; sys.exit(3)", SystemExit, "3"),
        ("\nraise AttributeError('create')", AttributeError, "create"),
        ("\nassert False", AssertionError, "no message"),
    ],
)
def test_module_that_fails(site: Site, code: str, kind: type[BaseException], said: str) -> None:
    file = site.module("acme", code)
    with pytest.raises(BackendError) as caught:
        create("acme.create")
    if kind is ModuleNotFoundError:
        assert type(caught.value) is BackendDependencyError
        return
    assert type(caught.value) is BackendImportError
    text = str(caught.value)
    assert f"{file} raised {kind.__name__} while being imported" in text
    assert said in text
    if kind is not SyntaxError:
        assert f"{file}, line 2" in text
    assert type(caught.value.__cause__) is kind


def test_module_that_fails_with_a_url_in_its_message(site: Site) -> None:
    site.module("acme", "raise ValueError('bad: redis://ada:s3cret@example.org')")
    assert "s3cret" not in message(BackendImportError, "acme.create")


def test_registered_module_that_fails(site: Site) -> None:
    site.module("acme", "1 / 0")
    site.distribution("acme-memory", "2.3", backends={"acme": "acme:create"})
    assert "acme-memory 2.3, acme:create" in message(BackendImportError, "acme")


def test_interrupting_an_import_interrupts(site: Site) -> None:
    site.module("acme", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        create("acme.create")


# --- no such attribute ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["package.module.creat", "package.module:creat"])
def test_misspelt_attribute(site: Site, path: str) -> None:
    file = site.module("package.module")
    text = message(BackendAttributeError, path)
    assert f"the module 'package.module' ({file}) has no attribute 'creat'" in text
    assert "Did you mean 'create'?" in text


def test_misspelt_attribute_of_a_class(site: Site) -> None:
    file = site.module("acme")
    text = message(BackendAttributeError, "acme.MyDB.craete")
    assert f"acme.MyDB in the module 'acme' ({file}) has no attribute 'craete'" in text
    assert "Did you mean 'create'?" in text


def test_misspelt_class(site: Site) -> None:
    site.module("acme")
    text = message(BackendAttributeError, "acme.Mydb.create")
    assert "Did you mean 'MyDB'?" in text


def test_attribute_like_no_other_gets_no_guess(site: Site) -> None:
    site.module("acme", "")
    assert "Did you mean" not in message(BackendAttributeError, "acme.create")


def test_module_in_place_of_an_attribute(site: Site) -> None:
    site.module("package.module")
    text = message(BackendAttributeError, "package.module")
    assert "It is a module of that package: name the factory in it" in text
    assert "'package.module:<name>'" in text


def test_attribute_missing_from_a_registered_backend(site: Site) -> None:
    site.module("acme")
    site.distribution("acme-memory", "2.3", backends={"acme": "acme:creat"})
    text = message(BackendAttributeError, "acme")
    assert "acme-memory 2.3, acme:creat" in text
    assert "Did you mean 'create'?" in text
    assert "pip install --force-reinstall acme-memory" in text


# --- not callable --------------------------------------------------------------------------------


def test_attribute_that_is_not_callable(site: Site) -> None:
    site.module("acme", "create = {}")
    text = message(BackendTypeError, "acme.create")
    assert "is not callable: it is of type dict" in text
    assert "expected a callable (embeddings, **options) -> MemoryVectorDatabase" in text


def test_argument_that_is_not_callable(site: Site) -> None:
    assert "it is of type int" in message(BackendTypeError, 5)


def test_a_database_is_not_its_factory(site: Site) -> None:
    site.module("acme")
    assert "it is of type acme.MyDB" in message(BackendTypeError, create("acme.create"))


def test_module_that_is_not_callable(site: Site) -> None:
    file = site.module("acme")
    site.distribution("acme-memory", backends={"acme": "acme"})
    text = message(BackendTypeError, "acme")
    assert f"acme is a module ({file}); name the factory in it: 'acme:<name>'" in text
    assert "(embeddings, **options) -> MemoryVectorDatabase" in text


# --- returned something else ---------------------------------------------------------------------


def test_factory_that_returns_none(site: Site) -> None:
    site.module("acme", "def create(embeddings): pass\n")
    text = message(BackendTypeError, "acme.create")
    assert "acme.create returned None. Missing 'return'?" in text


def test_factory_that_returns_a_class(site: Site) -> None:
    site.module("acme", site.database + "\ndef wrong(embeddings): return MyDB\n")
    text = message(BackendTypeError, "acme.wrong")
    assert "returned the class acme.MyDB and not an object: return MyDB(embeddings)" in text


def test_factory_that_returns_a_coroutine(site: Site) -> None:
    # That it is closed shows in that Python does not warn: a warning fails the test.
    site.module("acme", "async def create(embeddings): return None\n")
    text = message(BackendTypeError, "acme.create")
    assert "returned an awaitable (coroutine). Factories are synchronous" in text


def test_the_coroutine_is_closed(site: Site) -> None:
    site.module("acme", "async def create(embeddings): return None\n")
    made: list[Any] = []

    def factory(embeddings: Embeddings) -> Any:
        made.append(import_factory(choose_backend("acme.create"))(embeddings))
        return made[0]

    message(BackendTypeError, factory)
    assert inspect.getcoroutinestate(made[0]) == inspect.CORO_CLOSED


def test_factory_that_returns_another_object(site: Site) -> None:
    site.module(
        "acme",
        """
        class Nearly:
            async def add_memories(self, memories): ...
            async def search_memories(self, query, **kwargs): ...

        def create(embeddings): return Nearly()
        """,
    )
    text = message(BackendTypeError, "acme.create")
    assert "an object of type acme.Nearly, which is not a MemoryVectorDatabase" in text
    assert "it lacks delete_memories, update_memories, count_memories and list_memories" in text


def test_factory_that_returns_an_object_with_every_method(site: Site) -> None:
    site.module("acme", site.database.replace("(MemoryVectorDatabase)", ""))
    text = message(BackendTypeError, "acme.create")
    assert "an object of type acme.MyDB, which is not a MemoryVectorDatabase" in text
    assert "its class does not inherit from it" in text


def test_the_lacking_methods_are_the_abstract_ones(site: Site) -> None:
    text = message(BackendTypeError, lambda embeddings: object())
    assert f"it lacks {', '.join(ABSTRACT[:-1])} and {ABSTRACT[-1]}" in text


def test_wrong_result_of_a_registered_backend(site: Site) -> None:
    site.module("acme", "def create(embeddings): pass\n")
    site.distribution("acme-memory", "2.3", backends={"acme": "acme:create"})
    assert "acme-memory 2.3, acme:create" in message(BackendTypeError, "acme")


# --- the factory raised --------------------------------------------------------------------------


def test_what_the_factory_raises_passes_with_a_note(site: Site) -> None:
    site.module(
        "acme",
        """
        class Trouble(Exception): ...

        trouble = Trouble("no disk")

        def create(embeddings): raise trouble
        """,
    )
    site.distribution("acme-memory", "2.3", backends={"acme": "acme:create"})
    with pytest.raises(Exception, match="no disk") as caught:
        create("acme")
    assert caught.value is sys.modules["acme"].trouble
    assert caught.value.__notes__ == [
        "while creating backend 'acme' (from the argument factory; acme-memory 2.3, acme:create) "
        "via acme:create"
    ]


@pytest.mark.parametrize("kind", ["ImportError", "KeyError", "AttributeError", "TypeError"])
def test_errors_like_ours_pass_unchanged_too(site: Site, kind: str) -> None:
    site.module("acme", f"def create(embeddings): raise {kind}('no disk')\n")
    with pytest.raises(Exception, match="no disk") as caught:
        create("acme.create")
    assert type(caught.value).__name__ == kind
    assert caught.value.__notes__ == [
        "while creating backend 'acme.create' (from the argument factory) via acme.create"
    ]


def test_an_option_that_the_factory_does_not_take(site: Site) -> None:
    site.module("acme")
    with pytest.raises(TypeError, match="unexpected keyword argument 'space'") as caught:
        create("acme.create_plainly", space="notes")
    assert "via acme.create_plainly" in caught.value.__notes__[0]


def test_options_may_have_any_name(site: Site) -> None:
    site.module("acme")
    database: Any = create("acme.create", choice=1, source=2, options=3)
    assert database.options == {"choice": 1, "source": 2, "options": 3}


def test_a_class_that_is_still_abstract(site: Site) -> None:
    site.module(
        "acme",
        "from agent_memory import MemoryVectorDatabase\n"
        "class MyDB(MemoryVectorDatabase):\n    def __init__(self, embeddings): ...\n",
    )
    with pytest.raises(TypeError, match="abstract") as caught:
        create("acme.MyDB")
    assert not isinstance(caught.value, BackendError)


# --- one name, two distributions -----------------------------------------------------------------


def test_name_that_two_distributions_register(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.module("acme")
    site.module("other", "raise SystemExit")
    site.distribution("acme-memory", "2.3", backends={"vec": "acme:create"})
    site.distribution("other-memory", "0.4", backends={"vec": "other:create"})
    text = message(BackendConflictError, "vec")
    assert "acme-memory 2.3, acme:create" in text
    assert "other-memory 0.4, other:create" in text
    assert "set MEMORY_VECTOR_DB_FACTORY, or the argument factory, to" in text
    assert "'acme:create' or 'other:create'" in text
    monkeypatch.setenv("MEMORY_VECTOR_DB_FACTORY", "acme:create")  # as the message says
    assert type(create()).__module__ == "acme"


def test_same_name_and_target_from_two_distributions(site: Site) -> None:
    site.module("acme")
    site.distribution("acme-memory", "2.3", backends={"vec": "acme:create"})
    site.distribution("acme-fork", "0.4", backends={"vec": "acme:create"})
    text = message(BackendConflictError, "vec")
    assert "acme-memory 2.3" in text
    assert "acme-fork 0.4" in text
    assert type(create("acme:create")).__module__ == "acme"


def test_a_conflict_disturbs_no_other_name(site: Site) -> None:
    site.module("acme")
    site.distribution("acme-memory", backends={"vec": "acme:create", "acme": "acme:create"})
    site.distribution("other-memory", backends={"vec": "other:create"})
    assert type(create("acme")).__module__ == "acme"


def test_name_that_one_distribution_registers_twice(site: Site) -> None:
    site.distribution(
        "acme-memory",
        entry_points="[agent_memory.backends]\nvec = acme:create\nvec = acme:MyDB\n",
    )
    assert "'acme:MyDB' or 'acme:create'" in message(BackendConflictError, "vec")


# --- compatibility -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("core", "requirement", "upgrade"),
    [
        ("0.1.0", ">=0.4", "upgrade the core: pip install --upgrade agent-memory"),
        ("0.1.0", ">0.1.0", "upgrade the core: pip install --upgrade agent-memory"),
        ("0.1.0", "~=0.4.1", "upgrade the core: pip install --upgrade agent-memory"),
        ("0.1.0", "==0.4.*", "upgrade the core: pip install --upgrade agent-memory"),
        ("0.1.0", "<0.9,>=0.4", "upgrade the core: pip install --upgrade agent-memory"),
        ("0.9.0", "<0.9,>=0.4", "upgrade the backend: pip install --upgrade acme-memory"),
        ("0.9.0", "==0.4.*", "upgrade the backend: pip install --upgrade acme-memory"),
        ("0.9.0", "~=0.4.1", "upgrade the backend: pip install --upgrade acme-memory"),
        ("0.9.0", "!=0.9.0", "upgrade the backend: pip install --upgrade acme-memory"),
        ("0.9.0.dev3", ">=0.10", "upgrade the core: pip install --upgrade agent-memory"),
    ],
)
def test_backend_that_requires_another_core(
    site: Site, monkeypatch: pytest.MonkeyPatch, core: str, requirement: str, upgrade: str
) -> None:
    monkeypatch.setattr(agent_memory, "__version__", core)
    site.module("acme", "raise SystemExit('imported')")
    site.distribution(
        "acme-memory",
        "2.3",
        backends={"acme": "acme:create"},
        requires=[f"agent-memory{requirement}"],
    )
    for setting in ("acme", "acme:create"):
        text = message(BackendCompatibilityError, setting)
        assert "acme-memory 2.3, acme:create" in text
        assert f"requires agent-memory{requirement}" in text
        assert f"but agent-memory {core} is installed" in text
        assert text.endswith(upgrade)
    assert "acme" not in sys.modules


def test_pre_release_of_a_core_that_the_backend_accepts(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_memory, "__version__", "0.2.0.dev1")
    site.module("acme")
    site.distribution(
        "acme-memory", backends={"acme": "acme:create"}, requires=["agent-memory>=0.2"]
    )
    assert type(create("acme")).__name__ == "MyDB"


def test_requirement_that_cannot_be_read(site: Site) -> None:
    site.module("acme", "raise SystemExit('imported')")
    site.distribution(
        "acme-memory", "2.3", backends={"acme": "acme:create"}, requires=["agent-memory>=?"]
    )
    text = message(BackendCompatibilityError, "acme")
    assert "acme-memory 2.3" in text
    assert "its requirement 'agent-memory>=?' cannot be read" in text
    assert "pip install --upgrade acme-memory" in text


# --- the errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (BackendNotFoundError, LookupError),
        (BackendConflictError, LookupError),
        (BackendCompatibilityError, ImportError),
        (BackendImportError, ImportError),
        (BackendDependencyError, ModuleNotFoundError),
        (BackendAttributeError, AttributeError),
        (BackendTypeError, TypeError),
    ],
)
def test_errors_are_also_the_builtin_that_fits(
    error: type[BackendError], builtin: type[Exception]
) -> None:
    assert issubclass(error, builtin)
    assert issubclass(error, BackendError)


# --- embeddings ----------------------------------------------------------------------------------


def embeddings_of(argument: Any = None) -> Any:
    return resolve_embeddings(argument)


def test_the_factory_gets_the_resolved_embeddings(site: Site) -> None:
    site.module("acme")
    database: Any = create_memory_vector_db("acme.create", embeddings="local")
    assert isinstance(database.embeddings, LocalEmbeddings)


def test_embeddings_by_default(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for blank in (None, "", " "):
        if blank is not None:
            monkeypatch.setenv("EMBEDDING_MODEL", blank)
            monkeypatch.setenv("EMBEDDING_DIMENSIONS", blank)
        embeddings = embeddings_of()
        assert isinstance(embeddings, LiteLLMEmbeddings)
        assert embeddings.model == "text-embedding-3-small"


def test_embeddings_by_environment(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_MODEL", "acme/embed-9")
    monkeypatch.setenv("EMBEDDING_DIMENSIONS", "384")
    embeddings = embeddings_of()
    assert isinstance(embeddings, LiteLLMEmbeddings)
    assert (embeddings.model, embeddings.dimensions) == ("acme/embed-9", 384)
    monkeypatch.setenv("EMBEDDING_MODEL", "local")
    assert isinstance(embeddings_of(), LocalEmbeddings)


def test_embeddings_by_name(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_MODEL", "acme/embed-9")
    assert embeddings_of("acme/embed-7").model == "acme/embed-7"
    assert isinstance(embeddings_of("local"), LocalEmbeddings)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "1_000", "many", "²", "٣"])
def test_dimensions_that_are_no_number(
    site: Site, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("EMBEDDING_DIMENSIONS", value)
    with pytest.raises(InvalidArgumentError, match="environment variable EMBEDDING_DIMENSIONS is"):
        embeddings_of("acme/embed-9")


def test_embeddings_that_follow_the_protocol() -> None:
    assert embeddings_of(EMBEDDINGS) is EMBEDDINGS


def test_embeddings_with_members_of_the_instance_alone() -> None:
    class Plain:
        async def aembed_documents(self, texts: list[str]) -> None: ...
        async def aembed_query(self, text: str) -> None: ...

    embeddings: Any = Plain()
    with pytest.raises(InvalidArgumentError, match="it lacks model and dimensions"):
        embeddings_of(embeddings)
    embeddings.model, embeddings.dimensions = "plain", 3
    assert embeddings_of(embeddings) is embeddings


def test_embeddings_behind_a_proxy() -> None:
    class Proxy:
        def __init__(self, inner: object) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    proxy = Proxy(EMBEDDINGS)
    assert embeddings_of(proxy) is proxy
    with pytest.raises(InvalidArgumentError, match="it lacks model, aembed_documents"):
        embeddings_of(Proxy(object()))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (object(), "of type object does not follow the Embeddings protocol: it lacks model, "),
        (5, "it lacks model, dimensions, aembed_documents and aembed_query"),
        (SomeEmbeddings, "got the class .*SomeEmbeddings; give an object of it"),
        ("", "it is blank"),
        ("  ", "it is blank"),
    ],
)
def test_embeddings_that_are_none(site: Site, wrong: object, said: str) -> None:
    site.module("acme")
    with pytest.raises(InvalidArgumentError, match=said):
        create_memory_vector_db("acme.create", embeddings=wrong)  # type: ignore[arg-type]


def test_the_members_asked_for_are_those_of_the_protocol() -> None:
    members = {name for name in vars(Embeddings) if not name.startswith("_")}
    with pytest.raises(InvalidArgumentError) as caught:
        embeddings_of(object())
    assert all(name in str(caught.value) for name in members)


# --- cost ----------------------------------------------------------------------------------------


def test_discovery_is_not_repeated(site: Site) -> None:
    site.module("acme")
    folder = site.distribution("acme-memory", backends={"acme": "acme:create"})
    create("acme")
    (folder / "entry_points.txt").unlink()
    create("acme")
    clear_cache()
    message(BackendNotFoundError, "acme")
