"""Ways to step the half cheetah, one module for each backend; only the one asked for is imported.

A backend has `load()`, which raises where something is not installed, and

    step(position [9], velocity [9], action [6], mass_scale [], damping_scale [])
        -> position [9], velocity [9]

for one control step of one agent. Actions come clipped and scales positive.
"""
