"""The steps that carry the schema forward, one file each in `versions/`, applied by `berid.store.schema.migrate`.

A step is `NNNN_what_it_does.py`. Its docstring begins with `Pre:` if it must run before the new program does, and leaves an older
one working, or with `Post:` if it removes what only the older one needs. A released step is never edited; there is
no way back but a backup. `python -m berid.store.migrations.draft` writes the body of the next one.
"""
