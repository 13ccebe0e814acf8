"""The kill test: the process is killed again and again under load, and nothing may be lost, or doubled in silence.

`python -m tests.kill` is the whole of it, on both stores; docs/kill-test.md says what it does and how to read its table.
"""
