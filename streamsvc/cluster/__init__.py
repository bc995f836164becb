"""What the nodes of a cluster share through Redis: who they are, who owns a session, and what it has told.

In: the rows of a session's event log, its facts, questions and thumbnails, and the load of this node. Out:
the same of any session at any node. `node.ClusterNode` is this node's part in it; `registry.Registry` holds
claims with a lease and a fencing token; `shared_log.SharedLog` one stream per session;
`session_copy.SessionCopy` is the way from a session's own log to the shared one, through outages of Redis.
Without `cluster.url` none of it runs, and the package redis is not imported.
"""
