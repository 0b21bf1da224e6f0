"""Tables as Markdown, terminal output, LaTeX, CSV and a web page."""
