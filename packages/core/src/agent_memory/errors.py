"""The exception tree: every error that this ecosystem raises on purpose.

Each class also inherits from the builtin exception that fits, so that code which knows nothing of
us still catches what it expects to. Nothing here formats messages: the place that finds a problem
knows best what to say about it.
"""

from __future__ import annotations


class AgentMemoryError(Exception):
    """Base of every error raised on purpose by the core, by a backend or by the test kit."""


class InvalidArgumentError(AgentMemoryError, ValueError):
    """An argument of a call, or a filter, cannot be honoured. Nothing was read or written."""


class UnsupportedCapabilityError(AgentMemoryError, NotImplementedError):
    """The backend does not declare the capability that the call asks for."""


class ScopeError(AgentMemoryError, PermissionError):
    """A call on a scoped handle would reach outside its scope. Nothing was changed."""


class EmbeddingError(AgentMemoryError, RuntimeError):
    """Text could not be turned into usable vectors. Nothing of the call was stored."""


class EmbeddingMismatchError(AgentMemoryError, ValueError):
    """The space holds vectors of another model, another size or another metric."""


class BackendError(AgentMemoryError):
    """A backend could not be found, created or used."""


class BackendNotFoundError(BackendError, LookupError):
    """No installed distribution registers a backend under the name asked for."""


class BackendConflictError(BackendError, LookupError):
    """More than one distribution registers a backend under the name asked for."""


class BackendCompatibilityError(BackendError, ImportError):
    """The backend's distribution requires another version of the core. It was not imported."""


class BackendImportError(BackendError, ImportError):
    """The module that should hold the factory does not exist or failed while being imported."""


class BackendDependencyError(BackendError, ModuleNotFoundError):
    """The factory's module exists, but a module that it imports does not."""


class BackendAttributeError(BackendError, AttributeError):
    """The factory's module has no attribute of the name asked for."""


class BackendTypeError(BackendError, TypeError):
    """The factory is not callable, or returned something other than a memory vector database."""


class BackendUnavailableError(BackendError, ConnectionError):
    """The engine is down, slow, locked or full. The same handle may be used again later."""


class BackendClosedError(BackendError, RuntimeError):
    """The handle was closed. Create another one."""


class HookError(AgentMemoryError):
    """A plug-in with hooks could not be found, loaded or used."""


class HookNotFoundError(HookError, LookupError):
    """No installed distribution registers a plug-in under the name asked for."""


class HookConflictError(HookError, LookupError):
    """More than one distribution registers a plug-in under the name asked for."""


class HookCompatibilityError(HookError, ImportError):
    """The plug-in's distribution requires another version of the core. It was not imported."""


class HookImportError(HookError, ImportError):
    """The plug-in's module does not exist, failed while being imported, or lacks the plug-in."""


class HookTypeError(HookError, TypeError):
    """A plug-in does not fit the specifications, or a hook returned what it may not."""


class HookFailedError(HookError, RuntimeError):
    """A hook failed after the call was done: what the call was to write has been written."""
