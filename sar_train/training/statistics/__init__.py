"""Class statistics of a run: fitted on its photos by leaving classes out in turn, and the file that keeps them."""
