"""What ``agentq demo`` needs besides the agent: worker processes, their fates, what is seen, shown and counted."""
