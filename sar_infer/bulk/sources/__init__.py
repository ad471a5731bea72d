"""Where the inputs of a bulk run come from; every kind of unit is one file."""
