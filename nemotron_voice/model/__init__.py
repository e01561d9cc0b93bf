"""The network: weights and pure steps over explicit state; no threads, no asyncio."""
