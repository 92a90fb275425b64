"""Programs that measure what flatrecord costs, each to be run by anybody: ``python -m profiling``."""
