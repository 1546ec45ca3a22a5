"""The command line and its verbs, the emulated phone and update server, deployment templates, benchmarks."""
