"""SQL that every room shares.

The law of this room: nothing here knows a table of ours. Each module says what a database or SQLAlchemy does, and what
follows from it.

==============  ================================================
`clock`         the database's time, by which all workers go
`parameters`    many values as one parameter
`compiled`      statements compiled once, for the host's commit
`ranges`        ranges of an index, read in its order
`transactions`  how ours are isolated, and done again if refused
==============  ================================================
"""
