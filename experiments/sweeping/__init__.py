"""The parts of a sweep: what is to do, what is done, who does it, what is shown of it."""
