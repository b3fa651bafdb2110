"""Hooks around any backend, with pluggy: what a plug-in implements, and what it is told.

A plug-in is an object or a module with functions marked `hookimpl`, each named after a method of
`HookSpecification`. Importing this package loads pluggy; ``import agent_memory`` does not.
"""

from agent_memory.hooks.specification import Call, HookSpecification, hookimpl

__all__ = ["Call", "HookSpecification", "hookimpl"]
