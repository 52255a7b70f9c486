"""Ways to step the half cheetah; only what an agent needs is imported."""
