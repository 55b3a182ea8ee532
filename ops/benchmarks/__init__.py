"""Benchmarks: one module per subject, each measured beside a named peer or limit in the same run."""
