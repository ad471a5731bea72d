"""Result files in; tables, figures and one HTML page out. Needs no torch, and tables need no matplotlib."""
