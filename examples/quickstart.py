"""Three memories in, one question answered: in the process, offline, without a key.

Needs: pip install agent-memory-inmemory "agent-memory[local]"
"""

import asyncio

from agent_memory import MemoryRecord, UserId, create_memory_vector_db

MEMORIES = [
    MemoryRecord(id="1", text="Prefers window seats", user_id="ada", topics=["travel"]),
    MemoryRecord(id="2", text="Is allergic to hazelnuts", user_id="bruno", topics=["food"]),
    MemoryRecord(id="3", text="Runs along the river before breakfast", user_id="ada"),
]


async def main() -> None:
    async with create_memory_vector_db("inmemory", embeddings="local") as db:
        await db.add_memories(MEMORIES)

        page = await db.search_memories("where does she sit?", user_id=UserId(eq="ada"), limit=1)
        best = page.memories[0]
        print(f"{best.text} (score {best.score:.2f}, best of {page.total})")

        print(await db.count_memories(topics=["travel", "food"]), "memories about travel or food")


if __name__ == "__main__":
    asyncio.run(main())
