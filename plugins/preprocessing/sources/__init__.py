"""Sources of data: each reads the files of one kind into a table."""
