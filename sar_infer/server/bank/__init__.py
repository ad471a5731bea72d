"""The classes that a server chooses from: its bundle's bank, with the changes made while the server runs."""
