"""A research agent over Python's standard library: what ``agentq demo`` runs and ``examples/research`` shows."""
