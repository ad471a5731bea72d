"""An HTTP server for one bundle: ``sar-serve``; needs the extra ``serve``, never torch.

One process owns the sessions. A request goes through ``exchange`` (limits, deadline, request id), a file of ``routes``
(one a protocol), ``engine`` (decode pool, batcher, class sets) and back; ``engines`` holds the engine that answers now.
"""
