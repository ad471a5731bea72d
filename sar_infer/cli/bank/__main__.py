"""``python -m sar_infer.cli.bank``."""

from sar_infer.cli.bank import main

if __name__ == "__main__":
    main()
