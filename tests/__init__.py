"""The tests; a package, because some dependencies install a top-level `tests` of their own."""
