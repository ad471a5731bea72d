"""The model: an open bundle with its queue, its workers, its class sets and the memory for images."""
