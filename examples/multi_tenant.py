"""One database, two tenants: a scoped handle sees and changes only what is its own.

Give each request of your application a handle of its user, and no filter can be forgotten.

Needs: pip install agent-memory-inmemory "agent-memory[local]"
"""

import asyncio

from agent_memory import MemoryRecord, ScopeError, create_memory_vector_db


async def main() -> None:
    async with create_memory_vector_db("inmemory", embeddings="local") as db:
        ada = db.scoped(namespace="travel-agent", user_id="ada")
        bruno = db.scoped(namespace="travel-agent", user_id="bruno")

        # What a handle adds is stamped with its scope.
        await ada.add_memories([MemoryRecord(id="a1", text="Prefers window seats on trains")])
        await bruno.add_memories([MemoryRecord(id="b1", text="Prefers aisle seats on trains")])

        for name, memories in (("ada", ada), ("bruno", bruno)):
            page = await memories.search_memories("which seat on the train?")
            print(f"{name}: {[each.text for each in page.memories]}")

        # An id that another tenant holds can neither be read, nor replaced, nor deleted.
        print("bruno reads a1:", await bruno.get_memories(["a1"]))
        print("bruno deletes a1:", await bruno.delete_memories(["a1"]))
        try:
            await bruno.add_memories([MemoryRecord(id="a1", text="Mine now")])
        except ScopeError as error:
            print(f"bruno adds a1: {error}")

        print("in all:", await db.count_memories())


if __name__ == "__main__":
    asyncio.run(main())
