"""Mutated inputs for every dissector, bounded and repeatable.

`python -m tests.dissectors.fuzzing` runs for longer than the tests do, measures, and reports the worst inputs.
"""
