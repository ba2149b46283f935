"""The scheduler: pure policy on a virtual clock, the async shell on asyncio and trio."""
