"""The worker: claims runs, runs them step by step, hands them on."""
