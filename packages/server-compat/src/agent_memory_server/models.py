"""Records, results and enumerations; the same classes as in `agent_memory`.

Two have another name there: `SearchModeEnum` is `agent_memory.SearchMode`, `SearchScoreTypeEnum`
is `agent_memory.ScoreType`.
"""

from agent_memory import MemoryRecord, MemoryRecordResult, MemoryRecordResults, MemoryTypeEnum
from agent_memory import ScoreType as SearchScoreTypeEnum
from agent_memory import SearchMode as SearchModeEnum

__all__ = [
    "MemoryRecord",
    "MemoryRecordResult",
    "MemoryRecordResults",
    "MemoryTypeEnum",
    "SearchModeEnum",
    "SearchScoreTypeEnum",
]
