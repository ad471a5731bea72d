"""An HTTP server for one bundle: ``sar-serve``; needs the extra ``serve``, never torch.

One process owns the sessions. A request goes through ``http.middleware`` (key, limits, deadline, request id), a file of
``routes`` (one a protocol), ``model.engine`` (class sets, queue, workers) and back. ``service`` holds what all requests
share: the engine that answers now, and the ``bank`` with the classes that were added.
"""
