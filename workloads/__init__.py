"""The benchmark suite: each sub-package is one workload, a plugin of the engine."""
