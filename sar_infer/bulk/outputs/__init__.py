"""What a bulk run leaves behind: parts that appear whole, and one file or folder made of them."""
