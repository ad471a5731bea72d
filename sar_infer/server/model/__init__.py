"""What answers: one open bundle, its queue and its workers."""
