"""The stretch of the durable queue that a process holds in memory.

The table `job` is the truth; its five verbs (put, lease, done, again, bury) are methods of `store.hot.HotTx`, because every
one of them runs in the transaction of what the job is about (decision 3 in docs/decisions). `lanes.Lane` is what has
been leased and is about to be done, in order of priority and fair between accounts.
"""
