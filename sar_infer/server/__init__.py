"""An HTTP server for one bundle: ``sar-serve``; needs the extra ``serve``, never torch.

One process listens; it owns the sessions, or hands images to worker processes that do. A request takes twelve hops,
each the next function to read:

1. ``connection.Connection.data_received``: framing, headers, idle connections.
2. ``front.build_app``, ``handle``: key, host, size, deadline, request id, problems, the line in the log.
3. A function of ``routes``, or of ``doors`` for the protocol of another service.
4. ``request.read_call``: an image, a form, JSON or what ``curl -d`` sends, as a model and images.
5. ``asking.ask``; ``model.banks.Banks.open``: the banks of the call, as their files have them now.
6. ``model.engine.Engine.class_set``: the classes of the call.
7. ``model.line.Line.each``: the line of images.
8. ``model.workers.Processes.take``: an idle worker; ``model.supervisor`` says when one is started, or none for a while.
9. ``model.line.Line._work``: one batch, and what becomes of it if its worker dies.
10. ``processes.worker.Worker.answer_async``: the socket there and back.
11. ``model.process.Computer.__call__``, in the worker: images are decoded and encoded.
12. ``model.line.Line._finish``: the rows of a batch are ranked.

``service`` holds the state that all requests share, ``problems`` lists everything that a request can be refused for,
and ``model.banks`` has the banks.
"""
