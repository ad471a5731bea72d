"""An HTTP server for one bundle: ``sar-serve``; needs the extra ``serve``, never torch.

One process listens; it owns the sessions, or stands in front of worker processes that do. A request takes these steps:

1. ``http.connection``: headers, idle connections.
2. ``http.middleware``: key, body, deadline, request id, the line in the log.
3. ``app``: the route.
4. ``routes``: one file for each protocol.
5. ``http.request``: the body as a model and images.
6. ``model.names``: the class set.
7. ``model.engine``: one task for each image.
8. ``model.batcher``: tasks that wait run together.
9. ``model.workers``: the next idle worker; ``model.supervisor`` says when one is started.
10. ``processes.worker``: the pipe there and back.
11. ``model.process``: the image is decoded and encoded.
12. ``model.engine``: rows that arrive together are ranked together.

``service`` holds the state that all requests share, ``problems`` lists everything that a request can be refused for,
and ``bank`` keeps the classes that were added.
"""
