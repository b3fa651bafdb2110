"""Keeps what looks like a card number or an e-mail address out of storage and out of embeddings.

The plug-in `Redaction` replaces them in the free text of records and in queries, and refuses them
in identifiers. What looks like one is decided in `agent_memory_redaction.patterns`.
"""

from agent_memory_redaction.patterns import redacted
from agent_memory_redaction.plugin import Redaction, SensitiveIdentifierError

__all__ = ["Redaction", "SensitiveIdentifierError", "redacted"]
