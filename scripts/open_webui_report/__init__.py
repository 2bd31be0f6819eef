"""Uses Open WebUI itself in a browser, before a live server; `scripts/open_webui` starts it."""
