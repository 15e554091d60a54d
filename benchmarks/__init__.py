"""Speed and memory against the project's targets; every ratio is measured within one run."""
