"""From embeddings to results: the classes of a call, their logits and ranking, the decision and its output.

Pure functions on arrays and manifests: nothing here opens a file or a session. Only ``Classifier``, the command and the
server build on it.
"""
