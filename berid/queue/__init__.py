"""Durable jobs on the store's own tables, with a bounded memory in front.

The table is the truth (`table.TableQueue`: put, lease, done, again, bury). `lanes.Lane` is the short stretch of it that this
process has leased and is about to do, in order of priority and fair between accounts.
"""
