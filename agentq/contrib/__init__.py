"""Adapters to other frameworks; nothing in agentq imports them."""
