"""An HTTP server for one bundle: ``sar-serve``; needs the extra ``serve``, never torch.

One process listens; it owns the sessions, or stands in front of worker processes that do. A request passes through
``http.middleware`` (key, limits, deadline, request id), a file of ``routes`` (one for each protocol) and
``model.engine`` (class sets, queue, workers). ``service`` holds the state that all requests share, ``problems`` lists everything that a request can be refused for, and
``bank`` keeps the classes that were added.
"""
