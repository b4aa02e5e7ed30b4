"""SQL that every room shares.

The law of this room: no module knows a table of ours. Each explains a behaviour of a database or of SQLAlchemy, and the
code that this behaviour makes necessary.

==============  ====================================================================
`clock`         the database's time, which all workers use
`parameters`    many values as one parameter
`compiled`      statements compiled once, for the host's commit
`ranges`        ranges of an index, read in its order
`transactions`  isolation of our transactions, and their repetition after a conflict
==============  ====================================================================
"""
