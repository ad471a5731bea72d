"""The classes that a server chooses from: its bundle's bank, and what was added and removed while it runs."""
