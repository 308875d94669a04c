"""The control plane: reads how much work there is and decides how many workers it needs."""
