"""The bank that a server answers with: a bank file, changed with the functions of ``sar_infer.bank``."""
