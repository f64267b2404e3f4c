"""A report as a table on the terminal, as JSON, and as one page of HTML."""
