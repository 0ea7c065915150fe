"""A whole cloud in one thread and no time: run by seed, broken by seed, and judged by laws that hold anyway."""
