"""What ``worklist.py`` is made of: files -> answers that outlive a restart -> one page and one table."""
