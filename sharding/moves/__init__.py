"""Moving slots between servers while the application runs. The command `shards` is a shell around
this.

A move goes through these states; each may be begun again after a crash (see `run`):

    planned      published in the map, so that fan-outs leave its rows on the target out
    copying      logical replication copies the rows                           copying.py
    catching up  it follows; both sides are compared                           verifying.py
    verified     they were equal
    fenced       writers of these slots wait, for a second at most             handover.py
    moved        the source has given the slots up: the point of no return
    switched     the map names the target
    owned        the target takes writes                                       cleaning.py
    cleaned      nothing is left on the source

Until the source has given the slots up, a move may be aborted.
"""
