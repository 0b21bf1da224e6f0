"""The leaderboard as one page for a browser, `index.html`."""
