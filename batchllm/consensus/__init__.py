"""What several answers to a row agree on, and how good that is. Nothing here asks anybody anything.

`votes` holds them as a matrix of rows × voters; what is decided, estimated and measured are functions of it. All of it
is columnar: a million rows of five votes are arrays and no objects.
"""
