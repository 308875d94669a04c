"""The HTTP API and the page; nothing in agentq imports them."""
