"""One delivery without a process: the request that is made of it, and the attempt.

The law of this room: nothing here leases, loops or waits; workers, the API and the console call it alike.

==========  ===========================================================
`request`   destinations and delivery tasks; rendering, signing
`attempt`   build a request, send it, decide what follows; no database
`body`      the body of a delivery, for those who look at it afterwards
`excerpts`  what the log keeps of an answer
==========  ===========================================================
"""
