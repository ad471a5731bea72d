"""One run, from settings to record: the task, the run context, the loop and its state, and the files of a run."""
