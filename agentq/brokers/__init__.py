"""Where runs come in from other systems: one module for each broker."""
