"""Who belongs to a pool, for a picker that finds out by itself."""
